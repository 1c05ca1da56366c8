"""Rows as they were read, and the errors that list those that do not fit."""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from dcft_cli.errors import DataError, did_you_mean, listed

if TYPE_CHECKING:
    from datasets import Dataset

MAX_LISTED = 5
"""Rows that an error lists for each kind of problem; the remaining ones are counted."""


FIX = "Fix or remove these rows."
"""What to do about rows whose problem says it all."""


class Record(NamedTuple):
    """A row of a file: the line where it starts, if files of its format have lines, and values."""

    line: int | None
    values: Mapping[str, Any]


class BadRow(NamedTuple):
    """A row that cannot be read: `what` is wrong with it, in `detail`, and what to do about it."""

    line: int | None
    what: str
    detail: str
    hint: str


@dataclass
class Problem:
    """One kind of problem and the rows that have it, each as an error lists it."""

    what: str
    hint: str
    rows: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RowSet:
    """Checked rows, and where they come from, as errors name it.

    Attributes:
        records: the same rows as they were read, of validation sets.
    """

    dataset: "Dataset"
    source: str
    records: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Rows:
    """One set of rows, before it is checked.

    Checks collect what is wrong, and `raise_problems` reports all of it at once.

    Attributes:
        records: the rows, each from column name to raw value.
        columns: all columns of the source, including those that were not read into `records`.
        source: where the rows come from, as errors name it.
        lines: line of the text file at which each row starts; None for other sources.
        numbers: number of each row in its source, from 1; None: they are consecutive.
        published: whether it is a Hub data set, which the user cannot fix: empty texts are
            allowed (GLUE's QQP has two).
        class_names: by column, the names that the data set itself gives to its class numbers.
        namable: whether data.columns can name the columns.
        blank: number of rows without any value, which are not among the records.
        problems: what was found to be wrong so far.
    """

    records: Sequence[Mapping[str, Any]]
    columns: Sequence[str]
    source: str
    lines: Sequence[int] | None = None
    numbers: Sequence[int] | None = None
    published: bool = False
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    namable: bool = False
    blank: int = 0
    problems: list[Problem] = field(default_factory=list)

    def with_class_names(
        self, record: Mapping[str, Any], labels: Collection[str]
    ) -> dict[str, Any]:
        """Return a row with names for the data set's class numbers, which no other file knows.

        Args:
            labels: of the task; numbers stay where it calls the classes otherwise.
        """

        def named(value: Any, names: Sequence[str]) -> Any:
            if isinstance(value, list):
                return [named(part, names) for part in value]
            known = isinstance(value, int) and 0 <= value < len(names)
            return names[value] if known else value

        changed = {
            column: named(record[column], names)
            for column, names in self.class_names.items()
            if column in record and set(names) <= set(labels)
        }
        return {**record, **changed}

    @classmethod
    def collect(
        cls,
        read: Iterable[tuple[int, Record | BadRow]],
        columns: Sequence[str],
        source: str,
        class_names: Mapping[str, Sequence[str]],
        *,
        namable: bool,
    ) -> "Rows":
        """Put rows of a file together, given with their numbers; those without values are left out.

        Args:
            columns: may grow while `read` is consumed.
        """
        kept: list[tuple[int, Record]] = []
        problems: dict[str, Problem] = {}
        blank = 0
        for number, row in read:
            if isinstance(row, BadRow):
                problem = problems.setdefault(row.what, Problem(row.what, row.hint))
                problem.rows.append(f"{_location(number, row.line)}: {row.detail}")
            elif all(map(is_blank, row.values.values())):
                blank += 1
            else:
                kept.append((number, row))
        return cls(
            [row.values for _, row in kept],
            list(columns),
            source,
            [row.line for _, row in kept if row.line is not None] or None,
            [number for number, _ in kept],
            class_names=class_names,
            namable=namable,
            blank=blank,
            problems=list(problems.values()),
        )

    def number(self, index: int) -> int:
        """Return the number in its source, from 1, of the record at `index`."""
        return index + 1 if self.numbers is None else self.numbers[index]

    def values(self, column: str, setting: str) -> list[Any]:
        """Return the raw values of `column`, None for rows without it.

        A name matches in any Unicode form: accents may be composed or separate characters.

        Raises:
            DataError: there is no such column; the hint names `setting`, which chooses it.
        """
        found = self.find_column(column)
        if found is None:
            header = "; if the file has no header line, name its columns with data.columns"
            raise DataError(
                f"{self.source} has no column `{column}`. It has: {', '.join(self.columns)}.",
                f"{did_you_mean(column, self.columns)}Choose columns with {setting}"
                f"{header if self.namable else ''}.",
            )
        return [record.get(found) for record in self.records]

    def find_column(self, column: str) -> str | None:
        """Return the name of a column as the source writes it; None if there is none."""
        if column in self.columns:
            return column
        by_form = {unicodedata.normalize("NFC", name): name for name in self.columns}
        return by_form.get(unicodedata.normalize("NFC", column))

    def texts(self, column: str) -> list[Any]:
        """Return the values of the text column `column`; report those that are no text, or empty.

        Raises:
            DataError: there is no such column.
        """
        values = self.values(column, "data.text")
        self.check(column, values, self.text_problem, "no usable text", FIX)
        return values

    def check(
        self,
        column: str,
        values: Sequence[Any],
        problem: Callable[[Any], str],
        what: str,
        hint: str,
    ) -> None:
        """Report the values of `column` for which `problem` is not ""; see `report`."""
        texts = map(problem, values)
        self.report([f"`{column}` {text}" if text else "" for text in texts], what, hint)

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

    def report(self, problems: Sequence[str], what: str, hint: str = "") -> None:
        """Collect problems for `raise_problems`.

        Args:
            problems: of each record; "" if there is none.
            what: is wrong with these rows.
            hint: what to do about them.
        """
        found = []
        for index, text in enumerate(problems):
            if text:
                line = None if self.lines is None else self.lines[index]
                found.append(f"{_location(self.number(index), line)}: {text}")
        if found:
            problem = Problem(what, hint, found)
            if problem not in self.problems:  # labels are looked at more than once
                self.problems.append(problem)

    def raise_problems(self) -> None:
        """Raise a DataError with all problems that were reported, if there are any."""
        if not self.problems:
            return
        lines: list[str] = []
        for problem in self.problems:
            count = len(problem.rows)
            rows = "1 row" if count == 1 else f"{count:,} rows"
            lines.append(f"{self.source}: {problem.what} in {rows}:")
            lines.append("  " + listed(problem.rows, MAX_LISTED, "\n  "))
        hints = dict.fromkeys(problem.hint for problem in self.problems if problem.hint)
        raise DataError("\n".join(lines), "\n".join(hints))

    @property
    def notes(self) -> list[str]:
        """What was left out, for the user."""
        rows = "blank row" if self.blank == 1 else "blank rows"
        return [f"{self.source}: {self.blank:,} {rows} dropped"] if self.blank else []


def check_names(names: Sequence[str], source: str) -> None:
    """Raise DataError if columns have the same name: a row would have the values of one only."""
    if len(set(names)) < len(names):
        raise DataError(
            f"{source}: a column name is used twice: {', '.join(names)}.",
            "Give each column a name of its own.",
        )


def format_value(value: object) -> str:
    """Return a raw value as an error shows it: quoted, and shortened if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _location(number: int, line: int | None) -> str:
    return f"row {number}" + (f" (line {line})" if line is not None else "")


def is_blank(value: object) -> bool:
    """Return whether a raw value is none: null, or a text of blanks."""
    return value is None or (isinstance(value, str) and not value.strip())
