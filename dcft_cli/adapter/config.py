"""Settings of a DCFT adapter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Init = Literal["gradient", "zero", "normal"]


@dataclass(frozen=True)
class DCFTConfig:
    """Settings of the adapters, and the layers that get one (arXiv 2503.01419, section 3).

    Args:
        kernel_size: d, edge of the kernel C. A layer has about (in + out) k / s + d^2 values:
            fewest at d = 8 to 13 with the default stride and rank.
        stride: s, 1 to kernel_size; None: kernel_size (section 3.2.2).
        rank: k, rank of the subspace matrix B A.
        scale: constant factor of dW; alpha / r of the public implementation.
        targets: roles (Q, K, V, O, FFN, FFN_IN, FFN_OUT; CROSS, CROSS_Q, ... for
            cross-attention) or patterns of layer names.
        init: "normal" draws A, B and C from N(0, 0.02^2) (section 3.1); "zero" starts with
            dW = 0: orthonormal rows of A and columns of B, C = 0; "gradient" starts like "zero",
            until `start_from_gradient` chooses A and B.

    Raises:
        ValueError: a number out of range or an unknown init.
    """

    kernel_size: int = 8
    stride: int | None = None
    rank: int = 1
    scale: float = 4.0
    targets: Sequence[str] = ("Q", "K", "V", "O", "FFN")
    init: Init = "zero"

    def __post_init__(self) -> None:
        if self.kernel_size < 1 or self.rank < 1:
            raise ValueError("kernel_size and rank must be at least 1")
        if not 1 <= self.effective_stride <= self.kernel_size:
            raise ValueError(
                f"stride must be 1 to kernel_size ({self.kernel_size}), got {self.stride}"
            )
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"scale must be a positive number, got {self.scale}")
        if self.init not in get_args(Init):
            raise ValueError(f"init must be one of {get_args(Init)}, got {self.init!r}")
        if isinstance(self.targets, str) or not self.targets:
            raise ValueError("targets must be a list of at least one role or pattern")

    @property
    def effective_stride(self) -> int:
        """Return the stride, resolved where it is None."""
        return self.kernel_size if self.stride is None else self.stride
