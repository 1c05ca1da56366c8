"""Roles Q, K, V, O, FFN and name patterns, resolved to the linear layers of a model."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

from torch import nn

from dcft_cli.adapter.layer import DCFTLinear
from dcft_cli.errors import TargetError

# What each encoder family calls its layers, as the end of the module's dotted name.
# O comes before FFN_OUT: BERT's "attention.output.dense" ends like its "output.dense".
_NAMES = {
    "Q": r"query|query_proj|q_lin|q_proj|attn\.q",
    "K": r"key|key_proj|k_lin|k_proj|attn\.k",
    "V": r"value|value_proj|v_lin|v_proj|attn\.v",
    "O": r"attention\.output\.dense|attention\.out_lin|attn\.o|o_proj",
    "FFN_IN": r"intermediate\.dense|ffn\.lin1",
    "FFN_OUT": r"output\.dense|ffn\.lin2",
}
_ROLE_OF_NAME = {role: re.compile(rf"(?:^|\.)(?:{names})$") for role, names in _NAMES.items()}

GROUPS = {"FFN": ("FFN_IN", "FFN_OUT")}
ROLES = (*_NAMES, *GROUPS)


@dataclass(frozen=True)
class Target:
    """A linear layer that gets an adapter."""

    name: str
    role: str
    layer: nn.Linear


def role_of(name: str) -> str | None:
    """Role of a layer by its dotted name; None for one that no encoder family names so."""
    return next((role for role, ends in _ROLE_OF_NAME.items() if ends.search(name)), None)


def find_targets(
    model: nn.Module, targets: Sequence[str], *, exclude: Collection[str] = ()
) -> list[Target]:
    """Finds the linear layers that `targets` name, in the model's order.

    Args:
        model: any module; may be on the meta device.
        targets: roles, or patterns of module names with `*` and `?` (`*.attn.qkv`), matched
            against the whole dotted name or its end, as in `q_proj`.
        exclude: names of parameters that are trained as they are; layers that own one of them
            (the task head's) are no targets.

    Raises:
        TargetError: an entry of `targets` matches nothing, a target shares its weight with
            another part of the model, or the model has adapters already.
    """
    if any(isinstance(module, DCFTLinear) for module in model.modules()):
        raise TargetError(
            "The model has DCFT adapters already.", "Remove them first: remove_adapters(model)."
        )
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" not in exclude
    }
    roles = {name: role_of(name) for name in layers}
    found: dict[str, str] = {}
    missed = []
    for target in targets:
        if target in ROLES:
            wanted = GROUPS.get(target, (target,))
            # Each half of a group must be there: an FFN of one layer is not the FFN meant.
            missed += [role for role in wanted if role not in roles.values()]
            found |= {name: role for name, role in roles.items() if role in wanted}
        else:
            matches = [name for name in layers if _matches(name, target)]
            missed += [] if matches else [target]
            found |= {name: roles[name] or target for name in matches}
    if missed:
        raise TargetError(
            f"No linear layer for the target {_listed(missed)}. "
            f"The model ({type(model).__name__}) has:\n{_overview(layers)}",
            f"Targets are roles ({', '.join(ROLES)}) or patterns of the names above, "
            "such as `attention.dense`.",
        )
    _refuse_shared(model, found)
    return [Target(name, found[name], layer) for name, layer in layers.items() if name in found]


def _refuse_shared(model: nn.Module, targets: Collection[str]) -> None:
    """An increment for one layer must not change another that shares its weight."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for shared in names.values():
        for name in shared:
            if len(shared) > 1 and name.removesuffix(".weight") in targets:
                raise TargetError(
                    f"The weight of {name.removesuffix('.weight')} is shared: it is "
                    f"{', '.join(other for other in shared if other != name)} too.",
                    "Choose targets that leave it out: an adapter there would change both.",
                )


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names))


def _overview(layers: dict[str, nn.Linear]) -> str:
    """One line for each kind of layer; layers that differ in numbers alone share a line."""
    rows = [
        (re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name), layer.out_features, layer.in_features)
        for name, layer in layers.items()
    ]
    lines = [
        f"  {name}  {out} x {into}" + (f"  ({count} layers)" if count > 1 else "")
        for (name, out, into), count in ((row, len([*same])) for row, same in groupby(sorted(rows)))
    ]
    return "\n".join(lines) or "  no linear layers at all"
