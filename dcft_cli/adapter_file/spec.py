"""The description of an adapted weight in an adapter file: plain numbers, no tensors."""

import math
from dataclasses import dataclass

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter.sizes import subspace_size


@dataclass(frozen=True)
class Module:
    """One adapted weight of a file.

    Attributes:
        name: of the layer; with the role at its end where it is a block of a weight's rows.
        weight: full name of the parameter.
        rows: range [start, end) of the weight's rows that dW changes; None: all.
        count: how many matrices a stack of them has (the experts of a layer); None: no stack.
        transposed: the weight is stored as (in, out).
    """

    name: str
    role: str
    out_features: int
    in_features: int
    weight: str
    rows: tuple[int, int] | None = None
    count: int | None = None
    transposed: bool = False

    def shapes(self, config: DCFTConfig) -> dict[str, tuple[int, ...]]:
        """Return the shapes of A, B and C."""
        d, s, k = config.kernel_size, config.effective_stride, config.rank
        stack = () if self.count is None else (self.count,)
        return {
            "A": (*stack, k, subspace_size(self.in_features, d, s)),
            "B": (*stack, subspace_size(self.out_features, d, s), k),
            "C": (*stack, d, d),
        }

    def parameters(self, config: DCFTConfig) -> int:
        """Return the number of trained values."""
        return sum(map(math.prod, self.shapes(config).values()))

    @property
    def lora_parameters(self) -> int:
        """Return the number of values that LoRA with r = 1 trains for the same weight."""
        return (self.count or 1) * (self.out_features + self.in_features)

    @property
    def full_parameters(self) -> int:
        """Return the number of values that full fine-tuning trains: the weight's own."""
        return (self.count or 1) * self.out_features * self.in_features
