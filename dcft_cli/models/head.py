"""The task head that a base model brings along: which of its classes are those of the task."""

from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedConfig

from dcft_cli.errors import ModelError, listed
from dcft_cli.models.loading import BaseModel, skeleton
from dcft_cli.targets.head import outside_encoder

Reuse = Literal["auto", "keep", "replace"]

_STD = 0.02  # of a new layer's weights, as in BERT


def output_parameters(config: PreTrainedConfig, auto_class: str) -> dict[str, int]:
    """Return the parameters of a model that have one entry per class: those of its last layer.

    They are found by comparing shapes with those of a model with one more class, not by name.

    Returns:
        The dimension along which the classes lie, by name.
    """
    model, count = skeleton(config, auto_class), len(_names(config))
    larger = deepcopy(config)
    larger.num_labels = count + 1
    shapes: dict[str, torch.Size] = {}
    with suppress(ModelError):  # DistilBERT's class for questions takes no other number than 2
        shapes = {name: p.shape for name, p in skeleton(larger, auto_class).named_parameters()}
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        pairs = zip(parameter.shape, shapes.get(name, parameter.shape), strict=True)
        differing = [dim for dim, (size, other) in enumerate(pairs) if size != other]
        if differing:
            found[name] = differing[0]
    if not found:  # many question answering classes always have 2 outputs
        outside = outside_encoder(model)
        parameters = model.named_parameters()
        found = {name: 0 for name, p in parameters if name in outside and len(p) == count}
    return found


def reuse_head(
    base: BaseModel,
    own: PreTrainedConfig,
    labels: Sequence[str],
    reuse: Reuse,
    *,
    name: str,
    auto_class: str,
) -> tuple[BaseModel, str]:
    """Continue the last layer of the base's own task head, in place, or start a new one.

    Either is trained and stored with the adapter, so the adapter decides what the outputs mean.

    Args:
        base: as loaded, with the task's configuration.
        own: the base's configuration without the task's settings.
        labels: class names of the task; none if it has no classes.
        reuse: "auto" continues the layer if it has the task's classes, with its rows in the order
            of `labels`; "keep" continues it as it is; "replace" starts a new one.
        name: of the base, for messages.

    Returns:
        The base with its trained parameters, and what happened, for the user; "" if the base has
        no such head.

    Raises:
        ModelError: there is no head of this size to keep.
    """
    model, config = base.model, base.model.config
    layer = output_parameters(config, auto_class)
    model_class = type(model).__name__
    own_class = (own.architectures or [model_class])[0]
    own_count, count = len(_names(own)), len(_names(config))
    if layer.keys() & base.missing_keys:
        had_one = own_class == model_class and own_count != count
        if reuse == "keep":
            size = f": it has {own_count} outputs" if had_one else ""
            raise ModelError(
                f"head.reuse=keep: {name} has no task head with {count} outputs{size}.",
                "Leave head.reuse out; a new head is trained.",
            )
        if had_one:
            return base, (
                f"The task head of {name} has {own_count} outputs, and the task needs {count}: a "
                "new last layer is trained."
            )
        return base, ""
    parameters = dict(model.named_parameters())
    for parameter in map(parameters.__getitem__, layer):
        parameter.data = parameter.data.float()
    order, reason = _order(own, config, labels, reuse, is_same_class=own_class == model_class)
    if order is None:
        for parameter in map(parameters.__getitem__, layer):
            _initialize(parameter)
        return replace(base, missing_keys=base.missing_keys | layer.keys()), (
            f"{name} has a task head {reason}: a new last layer is trained."
            + ("" if reuse == "replace" else " head.reuse=keep continues the old one.")
        )
    for parameter_name, dim in layer.items():
        parameter = parameters[parameter_name]
        rows = torch.tensor(order, device=parameter.device)
        parameter.data = parameter.data.index_select(dim, rows)
    return replace(base, reused_keys=frozenset(layer)), (
        f"{name} has a task head {reason}: training continues its last layer."
    )


def _order(
    own: PreTrainedConfig,
    config: PreTrainedConfig,
    labels: Sequence[str],
    reuse: Reuse,
    *,
    is_same_class: bool,
) -> tuple[list[int] | None, str]:
    """Return the base's output for each class of the task, and why; None for a new layer."""
    unchanged = list(range(len(_names(config))))
    if reuse == "replace":
        return None, "(head.reuse=replace)"
    if reuse == "keep":
        return unchanged, "(head.reuse=keep)"
    if not is_same_class:
        return None, f"of another kind ({(own.architectures or ['?'])[0]})"
    usual = "regression" if len(_names(own)) == 1 else "single_label_classification"
    problem = own.problem_type or usual
    if config.problem_type not in (None, problem):
        return None, f"for another problem ({problem})"
    if not labels:
        return unchanged, "for this kind of task"
    names = _names(own)
    if names == [f"LABEL_{number}" for number in range(len(names))] != list(labels):
        return None, "whose classes have no names"
    found = _places(labels, names)
    if sorted(found) != unchanged or len(names) != len(found):
        return None, f"for other classes ({listed(names, 5)})"
    if found == unchanged:
        return found, "for these classes"
    return found, f"for these classes in another order ({listed(names, 5)}), which was changed"


def _names(config: PreTrainedConfig) -> list[str]:
    """Return the names of a model's outputs; transformers calls them LABEL_0, ... by default."""
    return [str(name) for _, name in sorted((config.id2label or {}).items())]


def _places(labels: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return the index in `names` of each label that is found there.

    If they are not the same, case does not matter: NLI models on the Hub write ENTAILMENT.
    """
    if set(labels) != set(names):
        labels = [label.strip().casefold() for label in labels]
        names = [name.strip().casefold() for name in names]
    places = {name: place for place, name in enumerate(names)}
    return [places[label] for label in labels if label in places]


@torch.no_grad()
def _initialize(parameter: nn.Parameter) -> None:
    """Draw a weight at random, and set a bias to zero."""
    if parameter.dim() > 1:
        nn.init.normal_(parameter, std=_STD)
    else:
        nn.init.zeros_(parameter)
