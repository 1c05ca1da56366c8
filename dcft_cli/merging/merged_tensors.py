"""The tensors of base + adapter, formed part by part."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.functional import low_rank_factors
from dcft_cli.adapter.inject import base_parameters
from dcft_cli.adapter.layer import Carrier

_PART = 1 << 18  # numbers formed at once: they fit a processor's cache
_SUMS = (torch.float64, torch.float32)  # taken in one, rounded to the other


class MergedTensors:
    """The tensors of base + adapter, formed part by part.

    Args:
        model: the base with its adapters and its trained head.
        dtype: type to round floating-point tensors to.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        buffers = {n: b for n, b in model.named_buffers() if n in model.state_dict()}
        self.stored: Mapping[str, Tensor] = base_parameters(model) | buffers
        self.dtype = dtype
        carriers = (module for module in model.modules() if isinstance(module, Carrier))
        self._carriers = {c.matrix.parameter.data_ptr(): c for c in carriers}

    def type_of(self, name: str) -> torch.dtype:
        """The type that a tensor is written in."""
        stored = self.stored[name]
        return self.dtype if stored.is_floating_point() else stored.dtype

    @torch.no_grad()
    def parts(self, name: str) -> Iterator[Tensor]:
        """W, or W + dW where there is an adapter, as it is stored, in flat parts.

        The sum is taken in float64 and rounded to float32, and once more to `dtype`. A part holds
        until the next one is asked for, which takes its room.
        """
        stored = self.stored[name].detach()
        carrier = self._carriers.get(stored.data_ptr())
        dtype = self.type_of(name)
        if carrier is None:
            for part in stored.flatten().split(_PART):  # type: ignore[no-untyped-call]
                yield part.to(dtype)
            return
        left, right = _factors(carrier)
        weights = stored.view(len(left), left.shape[-2], right.shape[-1])
        rows = max(1, _PART // right.shape[-1])
        # Fresh memory for each part would take as long as the sums.
        whole, single = (right.new_empty(rows, right.shape[-1], dtype=t) for t in _SUMS)
        rounded = single if dtype == torch.float32 else torch.empty_like(single, dtype=dtype)
        for weight, one_left, one_right in zip(weights, left, right, strict=True):
            for part, some in zip(weight.split(rows), one_left.split(rows), strict=True):
                count = len(part)
                single[:count] = whole[:count].copy_(part).addmm_(some, one_right)
                if rounded is not single:
                    rounded[:count] = single[:count]
                yield rounded[:count].flatten()


def _factors(carrier: Carrier) -> tuple[Tensor, Tensor]:
    """(n, rows, k) and (n, k, columns) in float64: dW of a weight as it is stored, n of a stack."""
    matrix, downs, ups = carrier.matrix, [], []
    for adapter in carrier.adapters:
        assert isinstance(adapter, DCFTAdapter)
        down, up = low_rank_factors(
            adapter.A.double(), adapter.B.double(), adapter.C.double(), **adapter.sizes
        )
        first, end = adapter.rows or (0, matrix.out_features)
        downs.append(down)
        ups.append(F.pad(up, (0, 0, first, matrix.out_features - end)))
    down, up = torch.cat(downs, dim=-2), torch.cat(ups, dim=-1)
    if matrix.count is None:
        down, up = down[None], up[None]
    return (down.mT.contiguous(), up.mT.contiguous()) if matrix.transposed else (up, down)


@contextmanager
def one_thread() -> Iterator[None]:
    """Parts are small: threads of torch's own would cost more than they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
