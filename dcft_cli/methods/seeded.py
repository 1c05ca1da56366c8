"""Random matrices that a seed determines: made again instead of stored."""

import numpy as np
import torch
from numpy.random import PCG64, RandomState, SeedSequence
from torch import Tensor


class SeededUniform:
    """A matrix with entries from U(-bound, bound), drawn when it is first needed.

    The values are the same on every machine and device: they are drawn on the CPU by numpy's
    `RandomState`, whose streams never change (NEP 19). torch promises that for none of its own.

    Args:
        seed: integers from 0 on, which together determine the values.
        shape: rows and columns.
    """

    def __init__(self, seed: tuple[int, ...], shape: tuple[int, int], bound: float) -> None:
        self.seed, self.shape, self.bound = seed, shape, bound
        self._copies: dict[torch.device, Tensor] = {}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def on(self, device: torch.device) -> Tensor:
        """Return the matrix on a device, in float32; it is kept there."""
        if device not in self._copies:
            with torch.inference_mode(False):  # training may need what a prediction drew
                self._copies[device] = torch.from_numpy(self._drawn()).to(device)
        return self._copies[device]

    def _drawn(self) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        random = RandomState(PCG64(SeedSequence(self.seed)))
        values = np.empty(self.shape, np.float32)
        for row in values:  # not at once: numpy draws in float64
            row[:] = (2 * random.random_sample(len(row)) - 1) * self.bound
        return values
