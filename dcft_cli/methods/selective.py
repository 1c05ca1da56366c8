"""Methods that train parameters of the base model and add none."""

from collections.abc import Sequence

from torch import nn

from dcft_cli.errors import TargetError
from dcft_cli.methods.method import Method
from dcft_cli.targets.resolve import Target


class Head(Method):
    """Train the task head only: the floor of every comparison."""

    def insert(self, model: nn.Module, targets: Sequence[Target]) -> None:
        """Leave everything frozen."""


class Full(Method):
    """Train every parameter of the model."""

    def insert(self, model: nn.Module, targets: Sequence[Target]) -> None:
        """Unfreeze the whole model."""
        for name, parameter in self.base.items():
            parameter.requires_grad_(name not in self.parts.fixed)


class BitFit(Method):
    """Train the biases of the encoder: of its linear layers and of its layer norms.

    Ben Zaken et al. 2022 (arXiv 2106.10199), section 3.
    """

    def insert(self, model: nn.Module, targets: Sequence[Target]) -> None:
        """Unfreeze the biases."""
        biases = [
            parameter
            for name, parameter in self.base.items()
            if name.endswith("bias") and name not in self.parts.fixed
        ]
        if not biases:
            raise TargetError(
                f"{type(model).__name__} has no biases, which bitfit would train.",
                "Choose another adapter.method.",
            )
        for bias in biases:
            bias.requires_grad_(True)
