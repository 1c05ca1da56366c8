"""The factors of an adapter as one vector, so that a batch gathers those of its rows at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np
import torch
from torch import Tensor

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter.functional import ShapeAndScale
from dcft_cli.adapter_file.contents import AdapterContents
from dcft_cli.adapter_file.spec import Module


@dataclass(frozen=True)
class Block:
    """Where A, B and C of a weight, or of a block of its rows, lie in the vector.

    Attributes:
        start, end: positions of A's first value, and after C's last.
        shapes: of A, B and C.
        shape_and_scale: of dW; the scale is 1, since the vector has it in C.
        rows: range [start, end) of the weight's rows that dW changes; None: all.
    """

    start: int
    end: int
    shapes: tuple[tuple[int, ...], ...]
    shape_and_scale: ShapeAndScale
    rows: tuple[int, int] | None

    def factors(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return A, B and C, (n, ...) each, as views of n vectors (n, size)."""
        sizes = [prod(shape) for shape in self.shapes]
        parts = vectors[:, self.start : self.end].split(sizes, dim=1)  # type: ignore[no-untyped-call]
        A, B, C = (part.unflatten(1, s) for part, s in zip(parts, self.shapes, strict=True))
        return A, B, C


@dataclass(frozen=True, eq=False)
class Layout:
    """How the factors of an adapter lie in its vector.

    Attributes:
        blocks: by the name of the weight.
    """

    blocks: Mapping[str, tuple[Block, ...]]


def layout_of(contents: AdapterContents) -> Layout:
    """Return the layout of an adapter file: one object for all files of the same shapes."""
    config = contents.config
    return _layout(config.kernel_size, config.effective_stride, config.rank, contents.modules)


@cache
def _layout(kernel_size: int, stride: int, rank: int, modules: tuple[Module, ...]) -> Layout:
    config = DCFTConfig(kernel_size=kernel_size, stride=stride, rank=rank)
    blocks: dict[str, tuple[Block, ...]] = {}
    start = 0
    for module in modules:
        shapes = module.shapes(config)
        end = start + module.parameters(config)
        shape_and_scale = ShapeAndScale(
            stride=stride,
            scale=1.0,
            out_features=module.out_features,
            in_features=module.in_features,
        )
        block = Block(start, end, tuple(shapes.values()), shape_and_scale, module.rows)
        blocks[module.weight] = (*blocks.get(module.weight, ()), block)
        start = end
    return Layout(blocks)


def as_vector(contents: AdapterContents) -> Tensor:
    """Return the factors of an adapter file in the order of its layout."""
    scales = {"A": np.float32(1), "B": np.float32(1), "C": np.float32(contents.config.scale)}
    parts = [
        (scale * contents.factors[module.name][factor]).ravel()
        for module in contents.modules
        for factor, scale in scales.items()
    ]
    return torch.from_numpy(np.concatenate(parts))
