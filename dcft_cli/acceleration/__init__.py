"""Optional: compute what an adapted model computes in less time and memory. See README.md here.

    enable(model)     # after inject(); the numbers stay the same up to rounding
    disable(model)    # the plain layers again

Nothing below this package imports it. No function of torch or transformers is replaced: layers
get another kernel, and modules are swapped for ones with the same parameters.
"""

from collections.abc import Collection
from typing import Literal, TypeVar, get_args

from torch import nn

from dcft_cli.acceleration import onednn
from dcft_cli.acceleration.batched_factors import SharedFactors
from dcft_cli.acceleration.lowrank_linear import LowRankKernel
from dcft_cli.adapter.layer import DCFTLinear
from dcft_cli.targets.modules import replace_modules

Piece = Literal["layers", "factors", "products", "attention"]
PIECES: tuple[Piece, ...] = get_args(Piece)
M = TypeVar("M", bound=nn.Module)
_SHARED = "_dcft_shared_factors"  # attribute of an accelerated model
_ORIGINAL = "_dcft_original"  # attribute of a module that took another's place


def enable(model: nn.Module, pieces: Collection[Piece] = PIECES) -> list[Piece]:
    """Switch on the pieces that apply to the model and its device, in place.

    Not for second derivatives, torch.func's transforms and torch.jit.trace: disable it for those,
    and before adapters are removed or merged. Parameters, their names, and what is saved stay as
    they are.

    Args:
        model: with adapters, on its device.
        pieces: what to consider; README.md explains each.

    Returns:
        The pieces that are on.
    """
    disable(model)
    by_onednn = (
        "products" in pieces
        and next(model.parameters()).device.type == "cpu"
        and onednn.is_faster()
    )
    linear = onednn.linear if by_onednn else nn.functional.linear
    layers = [module for module in model.modules() if isinstance(module, DCFTLinear)]
    if layers and "layers" in pieces:
        shared = SharedFactors(layers)
        if "factors" in pieces:
            shared.install(model)
            setattr(model, _SHARED, shared)
        kernel = LowRankKernel(shared, linear)
        for layer in layers:
            layer.kernel = kernel
            layer.linear = linear
    swapped: dict[nn.Module, nn.Module] = {}
    adapted = {layer.base for layer in layers}
    for module in model.modules():
        if by_onednn and type(module) is nn.Linear and module not in adapted:
            swapped[module] = _recast(module, onednn.OneDNNLinear)
        elif "attention" in pieces and type(module).__name__ == "DisentangledSelfAttention":
            # Imported where it is needed only: it brings transformers' model.
            from dcft_cli.acceleration.deberta_attention import AttentionByDistance, applies_to

            if applies_to(module):
                swapped[module] = _recast(module, AttentionByDistance)
    replace_modules(model, swapped)
    applies = any(layer.only_multiplies() for layer in layers)  # not to a quantized base
    on: dict[Piece, bool] = {
        "layers": applies and "layers" in pieces,
        "factors": applies and _SHARED in vars(model),
        "products": by_onednn,
        "attention": any(not isinstance(module, nn.Linear) for module in swapped),
    }
    return [piece for piece in PIECES if on[piece]]


def disable(model: nn.Module) -> None:
    """Undo `enable`, in place."""
    shared: SharedFactors | None = model.__dict__.pop(_SHARED, None)
    if shared is not None:
        shared.remove()
    swapped: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, DCFTLinear):
            for name in ("kernel", "linear"):
                vars(module).pop(name, None)
        elif _ORIGINAL in vars(module):
            swapped[module] = vars(module)[_ORIGINAL].train(module.training)
    replace_modules(model, swapped)


def _recast(module: nn.Module, cls: type[M]) -> M:
    """Return a module of a subclass with the same parameters, children and hooks."""
    new = cls.__new__(cls)
    vars(new).update(vars(module))
    vars(new)[_ORIGINAL] = module
    return new
