"""Short names of runs, from the settings in which they differ: `lora-lr1e-3-seed2`."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

_LABELS = {
    "learning_rate": "lr",
    "head_learning_rate": "headlr",
    "kernel_size": "kernel",
    "batch_size": "batch",
    "max_steps": "steps",
    "weight_decay": "decay",
    "max_length": "length",
}
# The value says what it is the name of.
_UNLABELED = frozenset({"name", "method", "train", "hub", "config", "type"})
_MAX_LENGTH = 80


def run_names(settings: Sequence[Mapping[str, Any]], fallback: str) -> list[str]:
    """Return a different name for each of several sets of settings.

    A name that is not unique (also where case makes no difference) or too long ends with a hash of
    its settings.

    Args:
        settings: by dotted key; the empty key has the name of the variant.
        fallback: the name where no setting differs.
    """
    names = [_name(own) or fallback for own in settings]
    counts = Counter(name.lower() for name in names)
    return [
        f"{name[:_MAX_LENGTH]}-{_hash(own)}"
        if counts[name.lower()] > 1 or len(name) > _MAX_LENGTH
        else name
        for name, own in zip(names, settings, strict=True)
    ]


def _name(settings: Mapping[str, Any]) -> str:
    return "-".join(filter(None, (_part(key, value) for key, value in settings.items())))


def _part(key: str, value: object) -> str:
    last = key.rpartition(".")[2]
    if isinstance(value, dict):
        return "-".join(filter(None, (_part(inner, entry) for inner, entry in value.items())))
    text = "-".join(map(_text, value if isinstance(value, list) else [value]))
    if not last or (last in _UNLABELED and isinstance(value, str)):
        return text
    label = _LABELS.get(last, last.replace("_", ""))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{label}{text}" if is_number else f"{label}-{text}"


def _text(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str):
        value = PurePath(value).stem if "/" in value else value
    text = json.dumps(value) if not isinstance(value, str) else value
    return re.sub(r"[^\w.+]+", "-", text).strip("-.")


def number(value: float) -> str:
    """Return a number in its shortest form: 0.5, 1e-3, 2.5e-5."""
    mantissa, _, exponent = f"{value:e}".partition("e")
    if -3 < int(exponent) < 4 or float(f"{value:e}") != value:
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _hash(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:6]
