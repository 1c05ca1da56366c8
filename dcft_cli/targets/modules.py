"""Modules put into a model in the place of others."""

from collections.abc import Mapping
from typing import Any

from torch import nn


class Wrapper(nn.Module):
    """A module around another one, `base`.

    Attributes that are not found here (`weight`, `bias`, `in_features`, ...) are those of `base`,
    which a model's code may read.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


def replace_modules(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Replace each module under every name that it has in the model."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in new:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, new[module])
