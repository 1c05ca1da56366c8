"""Texts, pairs and mappings, as a caller in Python has them, to rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from dcft_cli.data.rows import Rows, format_value


def is_single(inputs: object, columns: Sequence[str]) -> bool:
    """Return whether inputs are those of one row: a text, a mapping, or a pair in a tuple."""
    return isinstance(inputs, str | Mapping) or (isinstance(inputs, tuple) and len(columns) > 1)


def rows_of(inputs: Sequence[object], columns: Sequence[str]) -> Rows:
    """Return inputs as rows.

    Args:
        inputs: each a mapping by column; for two text columns else a pair, for one its value.
        columns: names of the text columns.

    Raises:
        DataError: inputs that are neither a mapping nor a pair, where pairs are needed.
    """
    records = [_record(value, columns) for value in inputs]
    found = dict.fromkeys(name for record in records for name in record or {})
    rows = Rows([record or {} for record in records], list(found) or columns, "the input")
    rows.report(
        [
            f"is {format_value(value)}, not a pair" if record is None else ""
            for value, record in zip(inputs, records, strict=True)
        ],
        "no pair",
        f"Give (text, text), or a mapping with the keys {' and '.join(columns)}.",
    )
    rows.raise_problems()
    return rows


def _record(value: object, columns: Sequence[str]) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return value
    if len(columns) == 1:
        return {columns[0]: value}
    if isinstance(value, tuple | list) and len(value) == len(columns):
        return dict(zip(columns, value, strict=True))
    return None
