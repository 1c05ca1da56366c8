"""What the program finds in every type of model: roles, the names of their layers, layouts."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby

import torch
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.models.auto import modeling_auto

from dcft_cli.errors import TargetError
from dcft_cli.targets.resolve import Target, find_roles, find_targets
from dcft_cli.targets.roles import GROUPS, members
from tests.architectures.exceptions import KINDS
from tests.architectures.tiny import UNBUILDABLE, tiny_model

ENCODER, BOTH, DECODER = "encoder", "encoder-decoder", "decoder"
ALL_ROLES = ("Q", "K", "V", "O", "FFN")
# What leads in, and what leads out.
COLUMNS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "attention": (("Q", "K", "V"), ("O",)),
    "feed-forward": (("FFN_IN",), ("FFN_OUT",)),
    "cross-attention": (GROUPS["CROSS"][:3], GROUPS["CROSS"][3:]),
}


@dataclass(frozen=True)
class Architecture:
    """A type of model.

    Attributes:
        kind: ENCODER, BOTH or DECODER.
        tokens, questions: whether transformers has a class for this task.
        roles: all that its layers have.
        names: for each of COLUMNS, the layers that have these roles, as Markdown.
        complete: the default targets resolve.
    """

    model_type: str
    kind: str
    tokens: bool
    questions: bool
    roles: frozenset[str] = frozenset()
    names: dict[str, str] = field(default_factory=dict)
    complete: bool = False


@cache
def architecture(model_type: str) -> Architecture:
    kind = kind_of(model_type)
    tokens = model_type in modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
    questions = model_type in modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES
    if model_type in UNBUILDABLE:
        return Architecture(model_type, kind, tokens, questions)
    with torch.device("meta"):
        model = tiny_model(model_type)
        base = tiny_model(model_type, "AutoModel")
    head = _head(model, base)
    found = find_roles(model, exclude=head)
    roles = frozenset(role for target in found for role in members(target.role))
    names = {
        column: " → ".join(filter(None, (_names(found, roles) for roles in ends)))
        for column, ends in COLUMNS.items()
    }
    complete = _is_complete(model, head)
    return Architecture(model_type, kind, tokens, questions, roles, names, complete)


def kind_of(model_type: str) -> str:
    return KINDS[model_type][0] if model_type in KINDS else kind_by_rule(model_type)


def kind_by_rule(model_type: str) -> str:
    if CONFIG_MAPPING[model_type]().is_encoder_decoder:
        return BOTH
    generates = model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    fills_in = model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return DECODER if generates and not fills_in else ENCODER


def _head(model: PreTrainedModel, base: PreTrainedModel) -> set[str]:
    """The parameters that a checkpoint without a head lacks."""
    known = {name for name, _ in base.named_parameters()}
    names = {name for name, _ in model.named_parameters()}
    return {n for n in names - known if n.removeprefix(f"{model.base_model_prefix}.") not in known}


def _is_complete(model: nn.Module, head: set[str]) -> bool:
    try:
        find_targets(model, ALL_ROLES, exclude=head)
    except TargetError:
        return False
    return True


def _names(found: Iterable[Target], roles: Sequence[str]) -> str:
    """`attention.{query, key, value}` and the like, each with its marks."""
    ours = [target for target in found if set(members(target.role)) <= set(roles)]
    modules = list(dict.fromkeys(_short(target).rpartition(".")[0] for target in ours))

    def order(target: Target) -> tuple[int, tuple[str, ...], int]:
        module = _short(target).rpartition(".")[0]
        first = min(map(roles.index, members(target.role)))
        return modules.index(module), _marks(target), first

    described = dict.fromkeys((_short(t), _marks(t)) for t in sorted(ours, key=order))
    return ", ".join(
        _braces(module, [name.rpartition(".")[2] for name, _ in same])
        + (f" *{', '.join(marks)}*" if marks else "")
        for (module, marks), same in groupby(
            described, key=lambda entry: (entry[0].rpartition(".")[0], entry[1])
        )
    )


def _braces(module: str, names: list[str]) -> str:
    last = names[0] if len(names) == 1 else f"{{{', '.join(names)}}}"
    return f"`{module}.{last}`" if module else f"`{last}`"


def _short(target: Target) -> str:
    """A layer's name after the number of its layer."""
    name = target.matrix.name
    inside = re.sub(r"^.*?\.\d+\.(?:\d+\.)?", "", name)
    if inside == name:  # no number: beside the layers
        return name.partition(".")[2]
    inside = re.sub(r"^\w*layers?\.\d+\.", "", inside)  # a layer has layers (ALBERT, T5)
    if "." not in inside and (part := re.search(r"\b(?:attentions|ffns)\.\d+\.\w+$", name)):
        # A list of attentions beside one of feed-forward blocks (XLM).
        return re.sub(r"\.\d+\.", ".*.", part.group())
    return re.sub(r"\.\d+(?=\.)", ".*", inside)


def _marks(target: Target) -> tuple[str, ...]:
    """A target's layout; that a stack is read goes without saying."""
    return tuple(m for m in target.layout if m != "read" or "stack" not in target.layout)
