"""Label columns: names of the classes in them, and the class numbers that values mean."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from dcft_cli.data.rows import Rows, format_value
from dcft_cli.errors import DataError

T = TypeVar("T")

_MAX_LISTED_LABELS = 20


@dataclass(frozen=True)
class LabelColumn:
    """The labels of all rows.

    Attributes:
        rows: that the column belongs to.
        name: of the column.
        values: the labels of each row, as the data writes them.
        problem: what an error says of a bad label; a format of its `value`, and its `number` in
            the row, from 1.
    """

    rows: Rows
    name: str
    values: Sequence[Sequence[object]]
    problem: str

    def class_names(self, hint: str) -> tuple[str, ...]:
        """Return the names of all classes, sorted; numerically if all are whole numbers.

        If the data set names its classes itself, return those names.

        Raises:
            DataError: a value that cannot name a class (`hint` says what can); fewer than two
                classes.
        """
        names = tuple(self.rows.class_names.get(self.name, ()))
        if not names:
            labels, problems = self._convert(label_name)
            self.rows.check(self.name, problems, str, "no usable label", hint)
            found = set(chain.from_iterable(labels))
            names = tuple(sorted(found, key=int if all(map(_is_number, found)) else None))
        if len(names) < 2:
            which = f"every label in `{self.name}` is {names[0]}" if names else "no row has a label"
            raise DataError(f"{self.rows.source}: {which}.", "At least two classes are needed.")
        return names

    def class_numbers(self, labels: Sequence[str]) -> list[list[int]]:
        """Return the class numbers of the labels of each row.

        A label is written as the name of a class or, unless the names are numbers themselves, as
        its number from 0. In a data set that names its classes itself, whole numbers are always
        class numbers.

        Raises:
            DataError: a value that is not a class.
        """
        number_of: dict[str | None, int] = {name: number for number, name in enumerate(labels)}
        own_numbers = tuple(self.rows.class_names.get(self.name, ())) == tuple(labels)
        if not any(map(_is_number, labels)):  # otherwise 1 is the class named "1"
            number_of |= {str(number): number for number in range(len(labels))}

        def number(value: object) -> int | None:
            if own_numbers and isinstance(value, int) and not isinstance(value, bool):
                return value if 0 <= value < len(labels) else None
            return number_of.get(label_name(value))

        numbers, problems = self._convert(number)
        if any(problems):
            unknown = {label_name(value) for row in self.values for value in row} - number_of.keys()
            hint = _known_labels(labels, unknown)
            self.rows.check(self.name, problems, str, "unknown label", hint)
        return numbers

    def _convert(self, convert: Callable[[object], T | None]) -> tuple[list[list[T]], list[str]]:
        """Convert the labels of each row; the first of a row that becomes None is a problem."""
        converted: list[list[T]] = []
        problems: list[str] = []
        for row in self.values:
            results = [convert(value) for value in row]
            problem = ""
            if None in results:
                bad = results.index(None)
                problem = self.problem.format(value=format_value(row[bad]), number=bad + 1)
            problems.append(problem)
            converted.append([result for result in results if result is not None])
        return converted, problems


def label_name(value: object) -> str | None:
    """Return a label of any type as a class name; None if it cannot be one.

    Whole numbers may come as floats (from a parquet column with gaps), and all values of a csv
    file are texts.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    if isinstance(value, int):
        return str(value)
    return (value.strip() or None) if isinstance(value, str) else None


def _known_labels(labels: Sequence[str], unknown: Collection[str | None]) -> str:
    listed = [f"{name} ({number})" for number, name in enumerate(labels)]
    if len(listed) > _MAX_LISTED_LABELS:
        listed[_MAX_LISTED_LABELS:] = [f"and {len(listed) - _MAX_LISTED_LABELS} more"]
    hint = f"Known labels: {', '.join(listed)}."
    if "-1" in unknown:
        hint += " -1 marks the hidden labels of GLUE's test sets: use another set."
    return hint


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal()
