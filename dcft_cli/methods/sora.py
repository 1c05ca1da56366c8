"""SoRA, sparse low-rank adaptation (Ding et al. 2023): LoRA whose rank is learned by gates."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.methods.linear import linear_layers
from dcft_cli.methods.lowrank import LowRankLinear, LowRankMethod, lowrank_layers
from dcft_cli.targets.modules import replace_modules
from dcft_cli.targets.resolve import Target
from dcft_cli.targets.weights import Matrix


class SoRA(LowRankMethod):
    """Add scale * W_u (g * W_d x) to each layer, and shrink the gates g towards zero.

    arXiv 2311.11696, section 3.2 and algorithm 1, with what the authors' code adds to it: a term
    in the loss beside the proximal step, and a threshold that the learning rate does not scale.
    """

    not_decayed = frozenset({"gate"})  # gates have a term of their own that shrinks them

    def insert(self, model: nn.Module, targets: Sequence[Target]) -> None:
        """Wrap the targets.

        Raises:
            TargetError: a target is no plain linear layer.
        """
        rank, scale, dropout = self.settings.rank, self.settings.scale, self.settings.dropout
        new = {
            matrix.module: GatedLinear(matrix, rank, scale=scale, dropout=dropout)
            for matrix in linear_layers("sora", targets).values()
        }
        replace_modules(model, new)

    def layers(self) -> list["GatedLinear"]:
        """Return the wrapped layers, in the model's order."""
        return [layer for layer in lowrank_layers(self.model) if isinstance(layer, GatedLinear)]

    def penalty(self) -> Tensor | None:
        """Return lambda / N times the sum of |g| over all N gates of the model."""
        if not self.settings.gate_penalty:
            return None
        gates = torch.cat([layer.gate for layer in self.layers()])
        return self.settings.gate_penalty * gates.abs().mean()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Shrink every gate by the threshold, unless the optimizer's step was skipped."""
        if self.was_skipped():
            return
        threshold = self.threshold(step)
        for layer in self.layers():
            layer.gate.copy_(shrunk(layer.gate, threshold))

    def threshold(self, step: int) -> float:
        """Return xi for a step: with a list, one of its values after another (algorithm 1)."""
        given = self.settings.gate_threshold
        if isinstance(given, float | int):
            return given
        assert self.total_steps is not None  # there are no steps outside training
        return given[min((step - 1) * len(given) // self.total_steps, len(given) - 1)]

    def facts(self) -> dict[str, Any]:
        """Return the gates, those that are not zero, and the values of W_d and W_u at these."""
        open_gates = [int(layer.gate.count_nonzero()) for layer in self.layers()]
        sizes = [layer.matrix.in_features + layer.matrix.out_features for layer in self.layers()]
        return {
            "gates": self.settings.rank * len(open_gates),
            "nonzero_gates": sum(open_gates),
            "parameters_left": sum(g * size for g, size in zip(open_gates, sizes, strict=True)),
        }


def shrunk(gate: Tensor, threshold: float) -> Tensor:
    """Return gates closer to zero by a threshold, or at zero: the proximal step.

    As in the authors' code, all that is left below the threshold is zeroed as well. So gates
    vanish from twice the threshold on; with the paper's soft threshold they do from once.
    """
    moved = torch.where(gate > threshold, gate - threshold, gate)
    moved = torch.where(gate < -threshold, gate + threshold, moved)
    return torch.where(moved.abs() < threshold, 0.0, moved)


class GatedLinear(LowRankLinear):
    """A frozen linear layer plus scale * W_u (g * W_d x), W_u zero at the start.

    Args:
        rank: r, the largest that training can end with.
    """

    def __init__(self, matrix: Matrix, rank: int, *, scale: float, dropout: float) -> None:
        super().__init__(matrix, scale=scale, dropout=dropout)
        new: dict[str, Any] = {"device": matrix.parameter.device, "dtype": torch.float32}
        self.down = nn.Parameter(torch.empty(rank, matrix.in_features, **new))
        self.up = nn.Parameter(torch.zeros(matrix.out_features, rank, **new))
        self.gate = nn.Parameter(torch.empty(rank, **new))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        nn.init.normal_(self.gate)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A = diag(g) W_d and B = W_u."""
        return self.gate[:, None] * self.down, self.up
