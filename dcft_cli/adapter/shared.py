"""What the adapted layers of a model do together in a forward pass."""

from collections.abc import Sequence

from torch import nn

from dcft_cli.acceleration.batched_factors import SharedFactors
from dcft_cli.adapter.activations import unwatch, watch
from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.layer import DCFTLinear
from dcft_cli.adapter.siblings import Group, Together

_SHARED = "_dcft_shared_work"  # attribute of an adapted model


def linear_layers(model: nn.Module) -> list[DCFTLinear]:
    """Its layers that are called with adapters."""
    return [module for module in model.modules() if isinstance(module, DCFTLinear)]


def share_work(model: nn.Module, groups: Sequence[Group] = ()) -> None:
    """Has a forward pass make the factors of all its linear layers at once.

    And has it remember where their inputs come from, and compute layers together that read the
    same one.

    Args:
        groups: of such layers; those that have no adapters any more are left out.
    """
    for shared in model.__dict__.pop(_SHARED, ()):
        shared.stop()
    unwatch(model)
    layers = linear_layers(model)
    adapters = {a: None for layer in layers for a in layer.adapters if isinstance(a, DCFTAdapter)}
    if adapters:
        left = [Group(parent, [one for one in some if one in layers]) for parent, some in groups]
        together = Together([group for group in left if len(group.layers) > 1])
        setattr(model, _SHARED, (SharedFactors(model, list(adapters)), together))
        watch(model)
