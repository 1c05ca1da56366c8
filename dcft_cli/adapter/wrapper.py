"""A module in the place of another one that keeps it."""

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
