"""NOLA (Koohpayegani et al. 2024): LoRA whose matrices are combinations of random ones."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dcft_cli.methods.linear import linear_layers
from dcft_cli.methods.lowrank import LowRankLinear, LowRankMethod
from dcft_cli.methods.seeded import SeededUniform
from dcft_cli.targets.modules import replace_modules
from dcft_cli.targets.resolve import Target
from dcft_cli.targets.weights import Matrix

# What is drawn from a seed.
_START, _BASES_A, _BASES_B = range(3)


class NOLA(LowRankMethod):
    """Add scale * B A x to each layer, A = A_0 + sum_i a_i A_i and B = sum_j b_j B_j.

    arXiv 2310.02556, section 3. Only the k numbers a and the k numbers b of each layer are
    trained and stored; the frozen random matrices are drawn again from the seed. Layers with the
    same number of inputs share the A_i, those with the same number of outputs the B_j, so that
    4 k r (inputs + outputs) bytes hold them, summed over the sizes that differ. (The authors'
    code draws others for every layer, at every step.)
    """

    def insert(self, model: nn.Module, targets: Sequence[Target]) -> None:
        """Wrap the targets; the random matrices are drawn when they are needed.

        Raises:
            TargetError: a target is no plain linear layer.
        """
        rank, k, seed = self.settings.rank, self.settings.bases, self.seed
        bases: dict[tuple[int, int], SeededUniform] = {}
        new: dict[nn.Module, nn.Module] = {}
        for number, matrix in enumerate(linear_layers("nola", targets).values()):
            into, out = matrix.in_features, matrix.out_features
            shared = []
            for kind, size in ((_BASES_A, into), (_BASES_B, out)):
                drawn = SeededUniform((seed, kind, size), (k, size * rank), 1 / math.sqrt(k))
                shared.append(bases.setdefault((kind, size), drawn))
            # Kaiming's uniform distribution with a = sqrt 5, as LoRA's A.
            start = SeededUniform((seed, _START, number), (rank, into), 1 / math.sqrt(into))
            new[matrix.module] = CombinedLinear(
                matrix, start, *shared, scale=self.settings.scale, rank=rank
            )
        replace_modules(model, new)


class CombinedLinear(LowRankLinear):
    """A frozen linear layer plus scale * B A x with A and B combined from random matrices.

    Args:
        start: A_0 (r, in); B_0 is zero.
        bases_a, bases_b: all A_i (r, in) and all B_j (out, r), each as a row.
    """

    def __init__(
        self,
        matrix: Matrix,
        start: SeededUniform,
        bases_a: SeededUniform,
        bases_b: SeededUniform,
        *,
        scale: float,
        rank: int,
    ) -> None:
        super().__init__(matrix, scale=scale)
        self.start, self.bases_a, self.bases_b, self.rank = start, bases_a, bases_b, rank
        device = matrix.parameter.device
        self.a = nn.Parameter(torch.zeros(bases_a.shape[0], device=device, dtype=torch.float32))
        self.b = nn.Parameter(torch.zeros(bases_b.shape[0], device=device, dtype=torch.float32))

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A and B."""
        device, dtype = self.a.device, self.a.dtype
        start, bases_a, bases_b = (
            drawn.on(device).to(dtype) for drawn in (self.start, self.bases_a, self.bases_b)
        )
        # Mixed precision would round all bases at every step.
        with torch.autocast(device.type, enabled=False):
            A = start + (self.a @ bases_a).view(self.rank, -1)
            return A, (self.b @ bases_b).view(-1, self.rank)
