"""Attention masks made without a look at the padding, for which the host would wait."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

_LOOKING = ("sdpa", "eager")


@contextmanager
def masks_without_looking() -> Iterator[None]:
    """Within it, models make a mask for every batch that comes with one.

    transformers leaves the mask out where nothing is padded. To know that, it asks the device at
    every forward pass, and the host waits until all work before is done. Among batches of
    different lengths few have no padding.
    """
    before = {name: ALL_MASK_ATTENTION_FUNCTIONS[name] for name in _LOOKING}
    ALL_MASK_ATTENTION_FUNCTIONS.update({name: _always(make) for name, make in before.items()})
    try:
        yield
    finally:
        ALL_MASK_ATTENTION_FUNCTIONS.update(before)


@cache  # torch.compile compiles anew for another function
def _always(make: Callable[..., Any]) -> Callable[..., Any]:
    def mask(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("attention_mask") is not None:
            kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        return make(*args, **kwargs)

    return mask
