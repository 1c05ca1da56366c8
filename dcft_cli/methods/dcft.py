"""DCFT by the protocol of all methods; the method itself is in dcft_cli/adapter/."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter.inject import (
    adapter_layers,
    base_parameters,
    fixed_parameters,
    insert,
    remove_unreached,
)
from dcft_cli.adapter.merge import merge
from dcft_cli.adapter.orthogonality import orthogonality
from dcft_cli.adapter_file.contents import AdapterContents, Contents
from dcft_cli.adapter_file.load import load_tensors
from dcft_cli.adapter_file.write import save_adapter
from dcft_cli.methods.method import Method
from dcft_cli.methods.weight_change import median_change, product_norm
from dcft_cli.recipe import AdapterSection
from dcft_cli.targets.gradients import Loss
from dcft_cli.targets.head import Parts
from dcft_cli.targets.resolve import Target


class DCFT(Method):
    """Adapters upscaled from a rank-one matrix by a transposed convolution (arXiv 2503.01419)."""

    def attach(self, model: nn.Module, parts: Parts) -> None:
        """Freeze a model except its head, and insert adapters, in place."""
        self.model, self.parts = model, parts
        self.insert(model, parts.targets)
        self.base = base_parameters(model)

    def insert(self, model: nn.Module, targets: Sequence[Target]) -> None:
        """Insert an adapter at every target."""
        config = adapter_config(self.settings)
        insert(model, targets, config, head=self.parts.trained, fixed=self.parts.fixed)

    def remove_unreached(self, inputs: Mapping[str, Any], loss: Loss | None = None) -> list[str]:
        """Remove the adapters that the loss does not depend on; return their names."""
        return remove_unreached(self.model, inputs, loss)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return A, B and C of every adapter."""
        return {
            f"{name}.{factor}": getattr(layer, factor)
            for name, layer in adapter_layers(self.model).items()
            for factor in "ABC"
        }

    def penalty(self) -> Tensor | None:
        """Return the weighted orthogonality term (Eq. 4), if the recipe has one."""
        weight = self.settings.orthogonality
        if not weight:
            return None
        layers = adapter_layers(self.model).values()
        return weight * orthogonality(layers, self.settings.orthogonality_form)

    def weight_change(self) -> float | None:
        """Return the median of |dW| / |W| over the layers; None if there is none to compare."""

        def change(adapter: DCFTAdapter) -> Tensor:
            down, up = adapter()
            return product_norm(up, down)

        adapters = adapter_layers(self.model).values()
        return median_change((a.target.matrix, partial(change, a)) for a in adapters if a.target)

    def save(
        self,
        path: Path,
        *,
        base: Mapping[str, str | None],
        info: Mapping[str, Any],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Write the adapter file."""
        names = {f"base_{key}": value for key, value in base.items()}
        save_adapter(self.model, path, **names, info=info, dtype=dtype)

    def fits(self, contents: Contents) -> bool:
        """Return whether a file has these adapters and this head."""
        config = adapter_config(self.settings)
        planned = replace(config, stride=config.effective_stride)
        head = {name: tuple(p.shape) for name, p in self.head().items()}
        return (
            isinstance(contents, AdapterContents)
            and replace(contents.config, targets=planned.targets) == planned
            and contents.factors.keys() == adapter_layers(self.model).keys()
            and {name: tensor.shape for name, tensor in contents.head.items()} == head
            and contents.fixed == fixed_parameters(self.model)
        )

    def load(self, contents: Contents) -> None:
        """Copy the tensors of a checked file into the attached model."""
        assert isinstance(contents, AdapterContents)
        load_tensors(self.model, contents)

    def fold(self) -> None:
        """Add every dW to its weight (Eq. 6)."""
        merge(self.model)


def adapter_config(settings: AdapterSection) -> DCFTConfig:
    """Return DCFT's settings in a recipe's adapter section."""
    names = {field.name for field in fields(DCFTConfig)}
    return DCFTConfig(**settings.model_dump(include=names))
