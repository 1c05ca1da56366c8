"""The methods that PEFT computes: LoRA and its kin, LoKr, PSOFT, VeRA and RoAd.

Here is how a recipe's settings become PEFT's.
"""

from collections.abc import Sequence
from math import gcd
from typing import Any

from torch import nn

from dcft_cli.errors import UserError
from dcft_cli.methods.peft_method import ADAPTER, PEFTMethod
from dcft_cli.targets.resolve import Target
from dcft_cli.targets.weights import Matrix


class LoRA(PEFTMethod):
    """dW = scale B A. Hu et al. 2021 (arXiv 2106.09685), section 4.1."""

    def config(self, **more: Any) -> Any:
        """Return PEFT's configuration; alpha / r is the scale."""
        from peft import LoraConfig

        alpha: Any = self.settings.scale * self.settings.rank  # PEFT takes any number
        return LoraConfig(
            **self.targets_as_stored(),
            r=self.settings.rank,
            lora_alpha=alpha,
            lora_dropout=self.settings.dropout,
            **more,
        )


class LoRAFA(LoRA):
    """LoRA with A frozen at its random start. Zhang et al. 2023 (arXiv 2308.03303), section 3.

    B is trained as any other parameter. PEFT's own LoRA-FA optimizer also rescales the gradient
    of B by (A A^T)^-1; it needs parameter groups of its own, which the Trainer cannot give it
    beside a head with another learning rate.
    """

    def insert(self, model: nn.Module, targets: Sequence[Target]) -> None:
        """Insert LoRA and freeze A."""
        super().insert(model, targets)
        for name in self.layers:
            layer: Any = model.get_submodule(name)
            layer.lora_A.requires_grad_(False)


class DoRA(LoRA):
    """W' = m (W + dW) / |W + dW|, by rows, with LoRA's dW.

    Liu et al. 2024 (arXiv 2402.09353), Eq. 5. The norm has no gradient, as in section 4.3.
    """

    fits_quantized = False  # PEFT puts new objects in the place of packed weights
    not_decayed = frozenset({"lora_magnitude_vector"})

    def config(self, **more: Any) -> Any:
        """Return PEFT's configuration."""
        return super().config(use_dora=True, **more)


class LoKr(PEFTMethod):
    """dW = scale C (x) (B A), C of size factor x factor. LyCORIS (arXiv 2309.14859), Eq. 4."""

    fits_transposed = False
    fits_quantized = False

    def config(self) -> Any:
        """Return PEFT's configuration."""
        from peft import LoKrConfig

        alpha: Any = self.settings.scale * self.settings.rank
        return LoKrConfig(
            **self.targets(),
            r=self.settings.rank,
            alpha=alpha,
            decompose_factor=self.settings.factor,
        )


class PSOFT(PEFTMethod):
    """dW = B (diag(b) R diag(a) - I) A, R orthogonal, B A the r largest singular values of W.

    PSOFT, ICLR 2026 (https://openreview.net/forum?id=FSHrinMArK). R, a and b are trained. The
    singular vectors A and B are frozen; the file holds them, since their signs differ between
    machines.
    """

    fits_transposed = False
    fits_quantized = False
    not_decayed = frozenset({"vector_a", "vector_b"})

    def config(self) -> Any:
        """Return PEFT's configuration; alpha = r, so that B A is part of W itself."""
        from peft import PsoftConfig

        rank = self.settings.rank
        return PsoftConfig(**self.targets(), r=rank, psoft_alpha=rank)

    def check(self, name: str, matrix: Matrix) -> None:
        """Refuse weights with fewer singular values than the rank, too."""
        super().check(name, matrix)
        size = min(matrix.out_features, matrix.in_features)
        if self.settings.rank > size:
            raise UserError(
                f"adapter.rank={self.settings.rank} is too large for psoft: {name} has "
                f"{size} singular values.",
                f"Choose a rank of at most {size}.",
            )

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return R, a and b, and the singular vectors as frozen parameters on the same memory."""
        vectors = {
            f"{name}.{own}": nn.Parameter(buffer, requires_grad=False)
            for name in self.layers
            for own, buffer in self.model.get_submodule(name).named_buffers()
            if buffer.is_floating_point()
        }
        return super().parameters() | vectors


class VeRA(PEFTMethod):
    """dW = diag(b) B diag(d) A. Kopiczko et al. 2023 (arXiv 2310.11454), section 3.

    A and B are random, frozen, and one pair for all layers. The file holds them, as PEFT's does:
    torch does not promise that its versions draw the same from a seed.
    """

    def config(self) -> Any:
        """Return PEFT's configuration; d starts at 0.1."""
        from peft import VeraConfig

        return VeraConfig(
            **self.targets_as_stored(), r=self.settings.rank, projection_prng_key=self.seed
        )

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return b and d of each layer, and A and B as frozen parameters on the same memory."""
        shared = self.wrapper.base_model
        projections = {
            name: nn.Parameter(getattr(shared, name)[ADAPTER], requires_grad=False)
            for name in ("vera_A", "vera_B")
        }
        return super().parameters() | projections


class RoAd(PEFTMethod):
    """W' = R W, bias' = R bias, R of scaled rotations of two features (RoAd_1).

    Liao and Monz 2024 (arXiv 2409.00119), section 3.
    """

    fits_transposed = False
    not_decayed = frozenset({"road_alpha"})
    _group_size = 64  # PEFT's own

    def config(self) -> Any:
        """Return PEFT's configuration, with the largest groups that fit every layer."""
        from peft import RoadConfig

        group = gcd(self._group_size, *(m.out_features for m in self.layers.values()))
        return RoadConfig(**self.targets(), variant="road_1", group_size=group)

    def check(self, name: str, matrix: Matrix) -> None:
        """Refuse weights whose rows make no pairs, too."""
        super().check(name, matrix)
        if matrix.out_features % 2:
            raise self.refusal(name, f"has {matrix.out_features} rows, which make no pairs")
