"""Rows as they were read, and errors that list those that do not fit."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dcft_cli.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

MAX_LISTED = 5
"""Problems that an error lists; the remaining ones are counted."""


@dataclass(frozen=True)
class RowSet:
    """Checked rows, and where they come from, as errors name it."""

    dataset: "Dataset"
    source: str


@dataclass(frozen=True)
class Rows:
    """One set of rows, before it is checked.

    Attributes:
        records: the rows, each from column name to raw value.
        columns: all columns of the source, including those that were not read into `records`.
        source: where the rows come from, as errors name it.
        lines: line of the text file at which each row starts; None for other sources.
        published: whether it is a Hub data set, which the user cannot fix: empty texts are
            allowed (GLUE's QQP has two).
        class_names: by column, the names that the data set itself gives to its class numbers.
    """

    records: Sequence[Mapping[str, Any]]
    columns: Sequence[str]
    source: str
    lines: Sequence[int] | None = None
    published: bool = False
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def values(self, column: str, setting: str) -> list[Any]:
        """Return the raw values of `column`, None for rows without it.

        Raises:
            DataError: there is no such column; the hint names `setting`, which chooses it.
        """
        if column not in self.columns:
            near = difflib.get_close_matches(column, self.columns, n=1)
            raise DataError(
                f"{self.source} has no column `{column}`. It has: {', '.join(self.columns)}.",
                (f"Did you mean `{near[0]}`? " if near else "")
                + f"Choose columns with {setting}; if the file has no header line, name its"
                " columns with data.columns.",
            )
        return [record.get(column) for record in self.records]

    def texts(self, column: str) -> list[str]:
        """Return the values of the text column `column`.

        Raises:
            DataError: there is no such column, or a value is not a text, or empty.
        """
        values = self.values(column, "data.text")
        hint = "Fix or remove these rows."
        self.check(column, values, self.text_problem, "no usable text", hint)
        return values

    def check(
        self,
        column: str,
        values: Sequence[Any],
        problem: Callable[[Any], str],
        what: str,
        hint: str,
    ) -> None:
        """Raise the error of `raise_for` unless `problem` is "" for every value of `column`."""
        texts = map(problem, values)
        self.raise_for([f"`{column}` {text}" if text else "" for text in texts], what, hint)

    def text_problem(self, value: object) -> str:
        """Return why a value cannot be used as a text; "" if it can."""
        if not isinstance(value, str):
            return "is missing" if value is None else f"is {format_value(value)}, not a text"
        if not value.strip() and not self.published:
            return "is empty"
        try:
            value.encode()
        except UnicodeEncodeError:  # JSON can escape half of a surrogate pair
            return "contains half a character (a lone surrogate)"
        return ""

    def raise_for(self, problems: Sequence[str], what: str, hint: str = "") -> None:
        """Raise a DataError that says `what` is wrong and lists the rows, if there are any.

        Args:
            problems: of each row; "" if there is none.
        """
        listed = [f"{self._location(n)}: {text}" for n, text in enumerate(problems) if text]
        if listed:
            count = "1 row" if len(listed) == 1 else f"{len(listed):,} rows"
            if len(listed) > MAX_LISTED:
                listed[MAX_LISTED:] = [f"and {len(listed) - MAX_LISTED:,} more"]
            lines = [f"{self.source}: {what} in {count}:", *listed]
            raise DataError("\n  ".join(lines), hint)

    def _location(self, index: int) -> str:
        line = f" (line {self.lines[index]})" if self.lines is not None else ""
        return f"row {index + 1}{line}"


def format_value(value: object) -> str:
    """Return a raw value as an error shows it: quoted, and shortened if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
