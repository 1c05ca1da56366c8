"""Label columns: names of the classes in them, and the class numbers that values mean."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dcft_cli.data.rows import FIX, Rows, format_value, is_blank
from dcft_cli.errors import DataError, listed

_MAX_DIGITS = 18
_WHOLE_FLOAT = re.compile(r"-?\d+\.0+")


@dataclass(frozen=True)
class LabelColumn:
    """The labels of all rows.

    Attributes:
        rows: that the column belongs to.
        name: of the column.
        values: the labels of each row, as the data writes them.
        problem: what an error says of a bad label; a format of its `value`, and its `number` in
            the row, from 1.
        hint: what can name a class.
    """

    rows: Rows
    name: str
    values: Sequence[Sequence[object]]
    problem: str
    hint: str

    def class_names(self) -> tuple[str, ...]:
        """Return the names of all classes, sorted; numerically if all are whole numbers.

        If the data set names its classes itself, return those names. Values that cannot name a
        class are passed over: `class_numbers` reports them.

        Raises:
            DataError: fewer than two classes.
        """
        names = tuple(self.rows.class_names.get(self.name, ()))
        if not names:
            found: dict[str, str] = {}
            for name in filter(None, {label_name(v) for row in self.values for v in row}):
                key = label_key(name)
                found[key] = min(name, found.get(key, name))
            names = tuple(sorted(found.values()))  # in one order for 1 and 01 too
            if all(map(_is_number, found)):
                names = tuple(sorted(names, key=int))
        if len(names) < 2:
            usable = [[0 if label_name(value) else None for value in row] for row in self.values]
            self._report(usable, names, ())
            self.rows.raise_problems()
            which = f"every label in `{self.name}` is {names[0]}" if names else "no row has a label"
            raise DataError(f"{self.rows.source}: {which}.", "At least two classes are needed.")
        return names

    def class_numbers(self, labels: Sequence[str], order: Sequence[str]) -> list[list[int]]:
        """Return the class numbers of the labels of each row; report values that are no class.

        A label is written as the name of a class. Numbers are names, too, with two exceptions: in
        a data set that names its classes itself, whole numbers are its own class numbers; else,
        if `order` is known and no name is a number, they are positions in `order`, from 0.

        Args:
            labels: names of the classes, in the order of the numbers to return.
            order: the same names in the order that the data's numbers mean; empty if nobody has
                declared one.
        """
        number_of = {label_key(name): number for number, name in enumerate(labels)}
        own = [label_key(name) for name in self.rows.class_names.get(self.name, ())]
        if len(own) == len(order) and not set(own) & number_of.keys():
            own = [label_key(name) for name in order]  # which gives the classes other names
        positions = [] if any(map(_is_number, labels)) else [label_key(name) for name in order]

        def number(value: object) -> int | None:
            name = label_name(value)
            if name is None:
                return None
            if own and isinstance(value, int) and not isinstance(value, bool):
                return number_of.get(own[value]) if 0 <= value < len(own) else None
            for key in (label_key(name), str(value)):  # a csv file may call the float 1.0 "1.0"
                if key in number_of:
                    return number_of[key]
            if positions and _is_number(name) and 0 <= int(name) < len(positions):
                return number_of[positions[int(name)]]
            return None

        numbers = [[number(value) for value in row] for row in self.values]
        self._report(numbers, labels, order if positions or own else ())
        return [[-1 if n is None else n for n in row] for row in numbers]

    def report_labels(self, names: Collection[str], what: str, hint: str) -> None:
        """Report the first label of each row that is one of `names`; see `Rows.report`."""
        problems = [""] * len(self.values)
        for index, row in enumerate(self.values):
            bad = next((n for n, value in enumerate(row) if label_name(value) in names), None)
            if bad is not None:
                problems[index] = self._describe(row, bad)
        self.rows.report(problems, what, hint)

    def _describe(self, row: Sequence[object], bad: int) -> str:
        return f"`{self.name}` " + self.problem.format(value=format_value(row[bad]), number=bad + 1)

    def _report(
        self, numbers: Sequence[Sequence[int | None]], labels: Sequence[str], order: Sequence[str]
    ) -> None:
        """Report the first label of each row that has no number."""
        missing, unusable, unknown = ([""] * len(numbers) for _ in range(3))
        names = set()
        for index, (row, values) in enumerate(zip(numbers, self.values, strict=True)):
            if None in row:
                bad = row.index(None)
                name = label_name(values[bad])
                names.add(name)
                no_class = missing if is_blank(values[bad]) else unusable
                problems = no_class if name is None else unknown
                problems[index] = self._describe(values, bad)
        self.rows.report(missing, "missing label", FIX)
        self.rows.report(unusable, "no usable label", self.hint)
        self.rows.report(unknown, "unknown label", _known_labels(labels, order, names - {None}))


def label_name(value: object) -> str | None:
    """Return a label of any type as a class name; None if it cannot be one.

    Whole numbers may come as floats (from a parquet column with gaps), and all values of a csv
    file are texts. Names have composed accents, however they are written.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    if isinstance(value, int):
        return str(value)
    return unicodedata.normalize("NFC", value.strip()) or None if isinstance(value, str) else None


def label_key(name: str) -> str:
    """Return what equal class names have in common: JSON has true for Python's True."""
    name = unicodedata.normalize("NFC", name)
    return name.lower() if name.lower() in ("true", "false") else name


def _known_labels(
    labels: Sequence[str], order: Sequence[str], found: Collection[str | None]
) -> str:
    known = [f"{name} ({number})" for number, name in enumerate(order)] or labels
    hint = f"Known labels: {listed(known)}."
    if "-1" in found:
        return hint + " -1 marks the hidden labels of GLUE's test sets: use another set."
    if order or not any(_is_number(name) for name in found if name):
        return hint
    if any(_WHOLE_FLOAT.fullmatch(name) for name in labels):
        return hint + " A number is a name, as it is written: 1 is not 1.0."
    return hint + (
        " They were found in the training data, so a number is only a name. If numbers mean"
        " positions, name the classes in order with task.labels."
    )


def _is_number(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isdecimal() and len(digits) <= _MAX_DIGITS
