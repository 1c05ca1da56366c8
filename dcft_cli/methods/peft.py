"""The methods that PEFT implements: LoRA and its kin, LoKr, PSOFT, VeRA and RoAd.

PEFT (https://github.com/huggingface/peft) computes them. Here is which layers they adapt, how a
recipe's settings become PEFT's, and how they are saved and merged.
"""

import warnings
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from math import gcd
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dcft_cli.errors import ModelError, TargetError, UserError
from dcft_cli.methods.linear import linear_layers
from dcft_cli.methods.method import Method
from dcft_cli.recipe import AdapterSection
from dcft_cli.targets.resolve import Target
from dcft_cli.targets.weights import Matrix

ADAPTER = "default"  # PEFT's own name for a model's only adapter


class PEFTMethod(Method):
    """A method of PEFT on whole linear layers.

    Attributes:
        fits_transposed: whether PEFT has it for weights stored as (in, out), as in GPT-2.
        fits_quantized: whether PEFT has it for weights in 4 or 8 bits.
        layers: the adapted layers, by name.
        wrapper: PEFT's view of the model, a `PeftModel`.
    """

    fits_transposed: ClassVar[bool] = True
    fits_quantized: ClassVar[bool] = True
    layers: dict[str, Matrix]
    wrapper: Any

    def __init__(
        self, settings: AdapterSection, *, seed: int, total_steps: int | None = None
    ) -> None:
        super().__init__(settings, seed=seed, total_steps=total_steps)
        if find_spec("peft") is None:
            raise UserError(
                f"adapter.method={settings.method} needs peft, which is not installed.",
                'Install the extra: pip install "dcft-cli[peft]".',
            )

    @abstractmethod
    def config(self) -> Any:
        """Return PEFT's configuration for `layers`."""

    def insert(self, model: nn.Module, targets: Sequence[Target]) -> None:
        """Let PEFT wrap the target layers."""
        from peft import get_peft_model

        self.layers = linear_layers(self.settings.method, targets)
        for name, matrix in self.layers.items():
            self.check(name, matrix)
        with quiet():
            self.wrapper = get_peft_model(model, self.config(), ADAPTER)
        self._check_wrapped()
        for name in self.layers:  # dropout is made in training mode
            model.get_submodule(name).train(model.training)

    def check(self, name: str, matrix: Matrix) -> None:
        """Raise TargetError if the method cannot adapt a layer."""
        if matrix.transposed and not self.fits_transposed:
            raise self.refusal(name, "is stored as (in, out)")
        if matrix.is_quantized and not self.fits_quantized:
            raise self.refusal(name, "is quantized")

    def refusal(self, name: str, problem: str) -> TargetError:
        """Return the error for a layer whose weight has a `problem`."""
        return TargetError(
            f"{self.settings.method} cannot adapt {name}: its weight {problem}.",
            "Leave it out of adapter.targets, or choose another adapter.method, such as lora.",
        )

    def targets(self) -> dict[str, Any]:
        """Return the settings that every method of PEFT has."""
        return {"target_modules": list(self.layers)}

    def targets_as_stored(self) -> dict[str, Any]:
        """Return them for methods that fit weights stored as (in, out)."""
        transposed = all(matrix.transposed for matrix in self.layers.values())
        return {**self.targets(), "fan_in_fan_out": transposed}

    def _check_wrapped(self) -> None:
        """Raise TargetError if PEFT, which matches the ends of names, took other layers too."""
        wrapped = set(self.wrapper.targeted_module_names)
        if others := sorted(wrapped ^ self.layers.keys()):
            raise TargetError(
                f"PEFT cannot tell the layer {others[0]} from one with a name that ends the same.",
                "Choose adapter.targets that name both, or another adapter.method.",
            )

    @torch.no_grad()
    def weight_change(self) -> float | None:
        """Return the median of |W' - W| / |W| over the adapted weights."""
        changes = []
        for name in self.layers:
            weight = self.model.get_submodule(name).get_base_layer().weight.to("cpu", torch.float64)
            changes.append(float((self.merged_layer(name).weight - weight).norm() / weight.norm()))
        return median(changes)

    @torch.no_grad()
    def merged_layer(self, name: str) -> nn.Module:
        """Return an adapted layer's plain form with W' (and RoAd's bias), in float64 on the CPU.

        Raises:
            ModelError: the weight is quantized.
        """
        if self.layers[name].is_quantized:
            raise ModelError(
                f"The weight of {name} is quantized: nothing can be added to it.",
                "Load the base model in full precision, load the adapter, and merge that.",
            )
        layer: Any = deepcopy(self.model.get_submodule(name)).to("cpu", torch.float64)
        layer.merge()
        return layer.get_base_layer()  # type: ignore[no-any-return]

    def fold(self) -> None:
        """Merge all layers: sums in float64, rounded once."""
        self.fold_layers(self.layers)
        self.wrapper.unload()  # what PEFT left beside the layers

    @torch.no_grad()
    def fold_layers(self, names: Collection[str]) -> None:
        """Merge these layers, and put the plain ones in their place."""
        for name in names:
            plain = self.model.get_submodule(name).get_base_layer()
            for own, value in self.merged_layer(name).named_parameters():
                plain.get_parameter(own).copy_(value)
            self.model.set_submodule(name, plain)


class LoRA(PEFTMethod):
    """dW = scale B A. Hu et al. 2021 (arXiv 2106.09685), section 4.1."""

    def config(self, **more: Any) -> Any:
        """Return PEFT's configuration; alpha / r is the scale."""
        from peft import LoraConfig

        rank = self.settings.rank
        return LoraConfig(
            **self.targets_as_stored(),
            r=rank,
            lora_alpha=self.settings.scale * rank,
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
    """W' = m (W + dW) / |W + dW|, by rows; dW as in LoRA. Liu et al. 2024 (arXiv 2402.09353), Eq. 5."""

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

        rank = self.settings.rank
        return LoKrConfig(
            **self.targets(),
            r=rank,
            alpha=self.settings.scale * rank,
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

    A and B are random, frozen, and one pair for all layers. They come from the seed, by torch's
    generator on the CPU, and are not in the file.
    """

    def config(self) -> Any:
        """Return PEFT's configuration; d starts at 0.1."""
        from peft import VeraConfig

        return VeraConfig(
            **self.targets_as_stored(), r=self.settings.rank, projection_prng_key=self.seed
        )


class RoAd(PEFTMethod):
    """W' = R W, bias' = R bias, R of scaled rotations of two features (RoAd_1).

    Liao and Monz 2024 (arXiv 2409.00119), section 3.
    """

    fits_transposed = False
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


@contextmanager
def quiet() -> Iterator[None]:
    """Silence PEFT's warnings about itself: deprecated names, and a file that it leaves open."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        yield
