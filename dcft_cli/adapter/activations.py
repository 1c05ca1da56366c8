"""Inputs of adapted layers that are computed again in the backward pass, not kept for it.

An adapted layer needs its input x once more, for the gradient of A'. Where x = f(h) comes from an
activation or a norm, autograd keeps h for the gradient of f, of a frozen model too, and x is f(h)
at the price of one pass over h. So these remember for their output which input it came from, while
both live. Where saved tensors go elsewhere (into a checkpoint's second pass, to another device),
autograd keeps no h, and x is saved as ever.
"""

from collections.abc import Callable, MutableMapping
from typing import NamedTuple

import torch
from torch import Tensor, compiler, nn
from torch.nn.modules.module import _global_forward_hooks
from torch.utils.weak import TensorWeakRef, WeakIdKeyDictionary

# Each one operation of torch, which keeps its input, not its output (as ReLU and Tanh do), and
# draws no random numbers. transformers' have names alone here, where it is not known.
_TYPES = (nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.LayerNorm)
_NAMES = frozenset(
    ("GELUActivation", "GELUTanh", "PytorchGELUTanh", "SiLUActivation", "MishActivation")
)


# Bytes of an output. To remember it and compute it again takes 0.03 ms of Python and dispatch: at
# eight tokens a tenth of a step, for memory that nobody misses.
_WORTH = 1 << 19


class Origin(NamedTuple):
    """Where a tensor comes from.

    Attributes:
        compute: the module that made it, without its hooks.
        h: what it made it from, without a graph.
    """

    compute: Callable[[Tensor], Tensor]
    h: Tensor


class _Mark(NamedTuple):
    compute: Callable[[Tensor], Tensor]
    h: TensorWeakRef
    versions: tuple[int, int]  # of h and of the output


# What is done with tensors that autograd saves, if anything. torch 2.6 and 2.7 cannot tell: there
# x is kept.
_saving: Callable[[bool], object] | None = getattr(
    torch._C._autograd, "_top_saved_tensors_default_hooks", None
)


def saving() -> object:
    """What is done with tensors that autograd saves; None: nothing, or it is not known."""
    return None if _saving is None else _saving(True)


# Not an attribute of the tensor: who writes it to a file would write the module with it.
_marks: MutableMapping[Tensor, _Mark] = WeakIdKeyDictionary()


def origin(x: Tensor) -> Origin | None:
    """Where x comes from, if it is the untouched output of an activation or a frozen norm.

    Rows of x are made of rows of h, (tokens, features), each by itself.
    """
    mark = _marks.get(x)
    h = None if mark is None else mark.h()
    if mark is None or h is None or mark.versions != (h._version, x._version):
        return None
    if _saving is None or saving() is not None:
        return None
    return Origin(mark.compute, h.detach())


def watch(model: nn.Module) -> None:
    """Has every activation and norm of a model remember where its outputs come from."""
    unwatch(model)
    modules = dict.fromkeys(model.modules())
    for module in list(modules):
        # torch's own layer has a fast way of scoring, which it leaves where there are hooks.
        for part in module.modules() if isinstance(module, nn.TransformerEncoderLayer) else ():
            modules.pop(part, None)
    for module in modules:
        known = type(module) in _TYPES or type(module).__name__ in _NAMES
        if known and len(getattr(module, "normalized_shape", "1")) == 1:  # of rows
            module.register_forward_hook(_remember, prepend=True)


def unwatch(model: nn.Module) -> None:
    """Undoes `watch`, in copies and parts of the model too."""
    for module in model.modules():
        for key, hook in list(module._forward_hooks.items()):
            if hook is _remember:
                del module._forward_hooks[key]


def _remember(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
    if compiler.is_compiling() or len(inputs) != 1:
        return
    (h,) = inputs
    if type(h) is not Tensor or type(output) is not Tensor or not output.requires_grad:
        return
    if output.nbytes < _WORTH:
        return
    # Hooks that came first may have given another output.
    hooked = _global_forward_hooks or next(iter(module._forward_hooks.values())) is not _remember
    own = module._parameters.values()  # they have no parts with others
    other = "forward" in vars(module) or any(p is not None and p.requires_grad for p in own)
    alike = (h.shape, h.dtype, h.device) == (output.shape, output.dtype, output.device)
    if alike and not (hooked or other) and h.data_ptr() != output.data_ptr():
        versions = h._version, output._version
        _marks[output] = _Mark(module.forward, TensorWeakRef(h), versions)
