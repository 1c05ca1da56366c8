"""Rows as they were read, and errors that say which of them do not fit."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from dcft_cli.errors import DataError

LISTED = 5
"""Offending rows that an error spells out; the others are counted."""


@dataclass(frozen=True)
class Rows:
    """One set of rows, before it is checked.

    Attributes:
        records: the rows, each from column name to raw value.
        columns: every column there is, also those that were not read into `records`.
        origin: where the rows come from, in the words an error uses.
        lines: line of the text file at which each row starts; None where there are no lines.
        published: a Hub data set, which the user cannot mend; it is forgiven empty texts
            (GLUE's QQP holds two).
        class_names: by column, the names that the data set itself gives to its class numbers.
    """

    records: Sequence[Mapping[str, Any]]
    columns: Sequence[str]
    origin: str
    lines: Sequence[int] | None = None
    published: bool = False
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def values(self, column: str, setting: str) -> list[Any]:
        """The raw values of `column`, None where a row lacks it.

        Raises:
            DataError: there is no such column; the hint names `setting`, which chooses it.
        """
        if column not in self.columns:
            near = difflib.get_close_matches(column, self.columns, n=1)
            raise DataError(
                f"{self.origin} has no column `{column}`. It has: {', '.join(self.columns)}.",
                (f"Did you mean `{near[0]}`? " if near else "")
                + f"Choose columns with {setting}; name those of a file without a header line"
                " with data.columns.",
            )
        return [record.get(column) for record in self.records]

    def texts(self, column: str, setting: str = "data.text") -> list[str]:
        """The values of `column`, all of them texts.

        Raises:
            DataError: no such column; a value that is no text, or an empty one.
        """
        values = self.values(column, setting)
        problems = [
            (index, f"`{column}` {problem}")
            for index, value in enumerate(values)
            if (problem := self.text_problem(value))
        ]
        if problems:
            self.refuse("no usable text", problems, "Mend these rows or take them out.")
        return values

    def text_problem(self, value: object) -> str:
        """What keeps a value from being a text, or one with something in it; "" if nothing."""
        if not isinstance(value, str):
            return "is missing" if value is None else f"is {shown(value)}, not a text"
        if not value.strip() and not self.published:
            return "is empty"
        try:
            value.encode()
        except UnicodeEncodeError:  # JSON can escape half of a surrogate pair
            return "holds half a character (a lone surrogate)"
        return ""

    def refuse(self, what: str, problems: Sequence[tuple[int, str]], hint: str = "") -> NoReturn:
        """Raises a DataError: `what` is wrong, in these rows (index from 0, and how)."""
        count = "1 row" if len(problems) == 1 else f"{len(problems):,} rows"
        listed = spelled_out([f"{self._place(index)}: {problem}" for index, problem in problems])
        raise DataError("\n".join([f"{self.origin}: {what} in {count}:", *listed]), hint)

    def _place(self, index: int) -> str:
        line = f" (line {self.lines[index]})" if self.lines is not None else ""
        return f"row {index + 1}{line}"


def spelled_out(problems: Sequence[str]) -> list[str]:
    """The lines of an error that list problems: the first ones, and how many more there are."""
    listed = [f"  {problem}" for problem in problems[:LISTED]]
    if len(problems) > LISTED:
        listed.append(f"  and {len(problems) - LISTED:,} more")
    return listed


def shown(value: object) -> str:
    """A raw value as an error shows it: quoted, and cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
