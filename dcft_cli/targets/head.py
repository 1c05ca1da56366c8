"""The task head of a transformers model: what lies outside its pretrained encoder."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from dcft_cli.targets.resolve import Target, find_targets, find_weights

Dense = Literal["full", "adapter", "frozen"]
HEAD_ROLE = "HEAD"


@dataclass(frozen=True)
class Parts:
    """What happens to the weights of a model; the encoder's others stay as they are.

    Attributes:
        targets: weights that get an adapter.
        trained: names of parameters that are trained themselves: the task head.
        fixed: names of parameters that the checkpoint lacks and that are not trained: weights
            become the identity, biases zero.
    """

    targets: tuple[Target, ...]
    trained: frozenset[str]
    fixed: frozenset[str]


def find_parts(
    model: nn.Module, targets: Sequence[str], *, head: Collection[str], dense: Dense
) -> Parts:
    """Decide which weights of a model are adapted, trained and fixed.

    Args:
        model: any module; may be on the meta device.
        targets: roles or patterns, for `find_targets`.
        head: names of the parameters that the checkpoint lacks.
        dense: what to do with the `dense_layers` among them. "full": train them, "frozen": fix
            them, "adapter": fix them and put adapters on their weights.

    Raises:
        TargetError: a target matches no layer.
    """
    found = find_targets(model, targets, exclude=head)
    layers = [] if dense == "full" else dense_layers(model, head)
    fixed = {f"{n}.{own}" for n in layers for own, _ in model.get_submodule(n).named_parameters()}
    if dense == "adapter":
        weights = find_weights(model)
        found += [Target(name, HEAD_ROLE, weights[f"{name}.weight"]) for name in layers]
    return Parts(tuple(found), frozenset(head) - fixed, frozenset(fixed))


@torch.no_grad()
def fix(parameter: nn.Parameter) -> None:
    """Set a matrix to the identity, a vector to zero."""
    if parameter.dim() == 2:
        nn.init.eye_(parameter)
    else:
        nn.init.zeros_(parameter)


def dense_layers(model: nn.Module, head: Collection[str]) -> list[str]:
    """Return the names of the square linear layers of a head before its last linear layer.

    Others, which do not keep the size of their input, have no identity.
    """
    layers = list(head_layers(model, head).items())
    return [name for name, layer in layers[:-1] if layer.in_features == layer.out_features]


def head_layers(model: nn.Module, head: Collection[str]) -> dict[str, nn.Linear]:
    """Return the linear layers of a model all of whose parameters are in `head`, in its order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and {f"{name}.{own}" for own, _ in module.named_parameters()} <= set(head)
    }


def outside_encoder(model: nn.Module) -> set[str]:
    """Return the names of the parameters outside the pretrained encoder of a transformers model.

    The encoder is `model.<base_model_prefix>`. In a model without such a part these are the
    parameters of its direct linear layers; a bare encoder has none.
    """
    prefix = getattr(model, "base_model_prefix", "")
    if prefix and isinstance(getattr(model, prefix, None), nn.Module):
        return {n for n, _ in model.named_parameters() if not n.startswith(f"{prefix}.")}
    if prefix and "For" in type(model).__name__:  # T5ForQuestionAnswering has no such part
        linear = [name for name, part in model.named_children() if isinstance(part, nn.Linear)]
        return {
            f"{name}.{n}" for name in linear for n, _ in getattr(model, name).named_parameters()
        }
    return set()
