"""Logits of models in float32, whatever type and place their weights are in."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from transformers import PreTrainedModel

from dcft_cli.adapter.layer import DCFTLinear
from dcft_cli.errors import MergeError
from dcft_cli.merging.merged_tensors import MergedTensors
from dcft_cli.models.loading import head_outputs
from dcft_cli.targets.example import example_of

TOLERANCE = 1e-4  # largest logit difference, float32
_HALF = (torch.bfloat16, torch.float16)
# Rows and length of the probes; of a large model's, whose forward passes take time.
_PROBES, _FEW_PROBES, _LARGE = (8, 32), (2, 8), 200_000_000
_PART = 1 << 18  # numbers cast at once
_PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}
_GATHERED = {torch.ops.aten.embedding.default, torch.ops.aten.index_select.default}


def probes(model: PreTrainedModel, *, few: bool = False) -> dict[str, Tensor]:
    """Random token ids of several lengths, padded on the right.

    Args:
        few: take fewer for a large model, of which more is known than its logits.

    Raises:
        MergeError: the model reads something else.
    """
    large = few and sum(p.numel() for p in model.parameters()) > _LARGE
    rows, length = _FEW_PROBES if large else _PROBES
    positions = getattr(model.config, "max_position_embeddings", None) or 0  # XLNet's are -1
    found = example_of(model, rows, min(length, positions - 2) if positions > 2 else length)
    if found is None:
        raise MergeError(
            f"A {type(model).__name__} does not read token ids: the merged model cannot be proved.",
            "Merge it in Python: load_adapter(model, path), then merge(model).",
        )
    return found


@torch.no_grad()
def logits(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """What the head of a model says."""
    return head_outputs(model(**inputs))


def largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Between two models' logits; not a number where one of them is none."""
    pairs = zip(found, expected, strict=True)
    return torch.stack([(a - b).abs().max() for a, b in pairs]).max().item()


class InFloat32(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes in float32 with half-precision weights, each cast for the operation that reads it.

    The same comes out as of a model whose weights were cast beforehand, but for the order in which
    float32 is summed, and there is never more than one of them in float32.

    Args:
        release: is called with every tensor that an operation has read.
    """

    def __init__(self, release: Callable[[Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.release = release

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """One operation."""
        kwargs = kwargs or {}
        if func.is_view:
            return func(*args, **kwargs)
        read = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if func in _PRODUCTS and not kwargs and args[-1].dtype in _HALF:
            result = _product(*args)
        else:
            if func not in _GATHERED:  # a few rows of a large table
                args, kwargs = tree_map(_widened, (args, kwargs))
            result = tree_map(_widened, func(*args, **kwargs))
        for tensor in read:
            self.release(tensor)
        return result


def _product(*args: Tensor) -> Tensor:
    """[(columns),] (rows, n) and a weight (n, columns), cast part by part in a processor's cache.

    Memory for the whole of a weight in float32, fresh each time, takes longer than the product.
    """
    *bias, x, weight = args
    parts = weight.split(max(1, _PART // max(1, len(weight))), dim=1)  # type: ignore[no-untyped-call]
    product = torch.cat([_widened(x) @ part.float() for part in parts], dim=1)
    return product + _widened(bias[0]) if bias else product


def _widened(value: Any) -> Any:
    """A half-precision tensor, or type, in float32."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    return torch.float32 if isinstance(value, torch.dtype) and value in _HALF else value


@contextmanager
def folded_on_the_fly(model: nn.Module, release: Callable[[Tensor], None]) -> Iterator[None]:
    """Has each adapted linear layer form W + dW, where it else adds two thin products.

    Args:
        release: is called with each W that has been read.
    """
    layers = [module for module in model.modules() if isinstance(module, DCFTLinear)]
    tensors = MergedTensors(model, torch.float32)
    # One room for all of them: fresh memory takes longer than the sums.
    room = torch.empty(max((layer.matrix.parameter.numel() for layer in layers), default=0))

    def form(layer: DCFTLinear) -> Tensor:
        stored = layer.matrix.parameter
        weight = room[: stored.numel()]
        position = 0
        for part in tensors.parts(layer.matrix.parameter_name):
            weight[position : position + len(part)] = part
            position += len(part)
        release(stored)
        return weight.view_as(stored)

    def forward(layer: DCFTLinear, x: Tensor) -> Tensor:
        # Formed in a thread of its own: `InFloat32` need not look at each part.
        weight = former.submit(form, layer).result()
        y: Tensor = functional_call(layer.base, {layer.matrix.tensor: weight}, (x,))
        return y

    with ThreadPoolExecutor(1) as former:
        for layer in layers:
            layer.forward = partial(forward, layer)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward
