"""Optional: compute what an adapted model computes in less time and memory. See README.md here.

    enable(model)     # after inject(): the same numbers up to rounding
    disable(model)    # the plain layers again

Nothing below this package knows of it. No function of torch or transformers is replaced: layers
get another kernel, and modules are swapped for ones with the same parameters.
"""

from typing import TypeVar

from torch import nn

from dcft_cli.acceleration import onednn
from dcft_cli.acceleration.batched_factors import SharedFactors
from dcft_cli.acceleration.lowrank_linear import LowRankKernel
from dcft_cli.adapter.inject import replace_modules
from dcft_cli.adapter.layer import DCFTLinear

M = TypeVar("M", bound=nn.Module)
_SHARED = "_dcft_shared_factors"  # attribute of an accelerated model
_ORIGINAL = "_dcft_original"  # attribute of a module that took another's place


def enable(model: nn.Module) -> dict[str, str]:
    """Switch on whatever helps on the model's device, in place.

    Not for second derivatives, torch.func's transforms and torch.jit.trace: disable it for those,
    and before adapters are removed or merged. Parameters, their names, and what is saved stay as
    they are.

    Args:
        model: with adapters, on its device.

    Returns:
        What was chosen, by subject: "adapters", "products" and "attention".
    """
    disable(model)
    by_onednn = next(model.parameters()).device.type == "cpu" and onednn.is_faster()
    shared = SharedFactors(model)
    setattr(model, _SHARED, shared)
    kernel = LowRankKernel(shared, onednn.linear if by_onednn else nn.functional.linear)
    for layer in shared.layers:
        layer.kernel = kernel
        layer.linear = kernel.linear
    swapped: dict[nn.Module, nn.Module] = {}
    adapted = {layer.base for layer in shared.layers}
    attention = "stock"
    for module in model.modules():
        if by_onednn and type(module) is nn.Linear and module not in adapted:
            swapped[module] = _recast(module, onednn.OneDNNLinear)
        elif type(module).__name__ == "DisentangledSelfAttention" and module.relative_attention:
            from dcft_cli.acceleration.deberta_attention import AttentionByDistance

            swapped[module] = _recast(module, AttentionByDistance)
            attention = "by distance"
    replace_modules(model, swapped)
    products = "onednn" if by_onednn else "torch"
    return {"adapters": "one operation", "products": products, "attention": attention}


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
