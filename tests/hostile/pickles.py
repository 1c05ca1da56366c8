"""Pickles that create a file when they are loaded, in the forms that torch knows."""

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


class Evaluated(Touch):
    """The same by an expression, from a module that everything may import."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"__import__('os').mkdir({self.marker!r})",)


def _plain(marker: Path) -> bytes:
    return pickle.dumps(Touch(marker))


def _oldest(marker: Path) -> bytes:
    return b"cos\nmkdir\n(V" + str(marker).encode() + b"\ntR."


def _expression(marker: Path) -> bytes:
    return pickle.dumps(Evaluated(marker), protocol=2)


def _saved(value: object, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **settings)
    return buffer.getvalue()


def _zip(marker: Path) -> bytes:
    return _saved(Touch(marker))


def _legacy(marker: Path) -> bytes:
    return _saved(Touch(marker), _use_new_zipfile_serialization=False)


def _among_weights(marker: Path) -> bytes:
    weights = {"encoder.layer.0.attention.self.query.weight": torch.zeros(16, 16)}
    return _saved(OrderedDict(weights, extra=Touch(marker)))


FORMS: dict[str, Callable[[Path], bytes]] = {
    "plain": _plain,
    "oldest": _oldest,
    "expression": _expression,
    "zip": _zip,
    "legacy": _legacy,
    "among-weights": _among_weights,
}
