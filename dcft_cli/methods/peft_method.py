"""What the methods of PEFT (https://github.com/huggingface/peft) have in common.

PEFT computes them. Here is which layers they adapt, and how they are merged.
"""

import warnings
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dcft_cli.adapter.precision import autocast_dtype
from dcft_cli.errors import TargetError, UserError
from dcft_cli.methods.linear import LinearMethod, linear_layers
from dcft_cli.methods.weight_change import median_change
from dcft_cli.recipe import AdapterSection
from dcft_cli.targets.resolve import Target
from dcft_cli.targets.weights import Matrix

ADAPTER = "default"  # PEFT's own name for a model's only adapter


class PEFTMethod(LinearMethod):
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
        for name in self.layers:
            layer = model.get_submodule(name)
            layer.train(model.training)  # dropout is made in training mode
            layer.register_forward_hook(_as_under_autocast)

    def detach(self) -> None:
        """Put the plain layers back, as they were."""
        self.wrapper.unload()

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

    def weight_change(self) -> float | None:
        """Return the median of |W' - W| / |W| over the layers; None if there is none to compare."""

        def change(name: str) -> Tensor:
            before, after = self.base_layer(name).weight, self.merged_layer(name).weight
            norm: Tensor = (after - before.to("cpu", torch.float64)).norm()
            return norm

        return median_change((matrix, partial(change, n)) for n, matrix in self.layers.items())

    def base_layer(self, name: str) -> Any:
        """Return the plain layer that PEFT has wrapped."""
        layer: Any = self.model.get_submodule(name)
        return layer.get_base_layer()

    @torch.no_grad()
    def merged_layer(self, name: str) -> Any:
        """Return an adapted layer's plain form with W' (and RoAd's bias), in float64 on the CPU."""
        layer: Any = deepcopy(self.model.get_submodule(name))
        layer.to("cpu", torch.float64)
        layer.merge()
        return layer.get_base_layer()

    def fold(self) -> None:
        """Merge all layers: sums in float64, rounded once."""
        self.fold_layers([*self.layers])
        self.wrapper.unload()  # what PEFT left beside the layers

    @torch.no_grad()
    def fold_layers(self, names: Collection[str]) -> None:
        """Merge these layers and put the plain ones in their place; they are no targets then.

        Raises:
            ModelError: a weight is quantized; nothing is changed then.
        """
        for name in names:
            self.layers[name].refuse_quantized()
        for name in names:
            plain = self.base_layer(name)
            for own, value in self.merged_layer(name).named_parameters():
                plain.get_parameter(own).copy_(value)
            self.model.set_submodule(name, plain)
            del self.layers[name]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence PEFT's warnings about itself: deprecated names, and a file that it leaves open."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        yield


def _as_under_autocast(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Cast the output of a linear layer to the type that autocast would compute it in.

    PEFT's LoKr and VeRA return float32, which DeBERTa's attention does not take.
    """
    dtype = autocast_dtype(output.device.type)
    return output if dtype is None else output.to(dtype)
