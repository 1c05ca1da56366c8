"""Labels: what a value in the data is called, and the number of the class that it stands for."""

from collections.abc import Callable, Collection, Sequence

from dcft_cli.data.rows import Rows

Say = Callable[[int, object], str]
"""What an error says of one label of a row: from its place in the row (from 0) and its value."""

_LISTED_LABELS = 20


def find_names(
    rows: Rows, column: str, values: Sequence[Sequence[object]], say: Say, hint: str
) -> tuple[str, ...]:
    """The class names in `column`, sorted; in numeric order where all are whole numbers.

    A data set that names its classes itself (one of the Hub) is taken at its word.

    Args:
        values: the labels of each row.
        say, hint: for the error.

    Raises:
        DataError: a value that names no class.
    """
    if own := rows.class_names.get(column):
        return tuple(own)
    found: set[str] = set()
    problems: list[tuple[int, str]] = []
    for index, row in enumerate(values):
        names = [label_name(value) for value in row]
        if None in names:
            place = names.index(None)
            problems.append((index, say(place, row[place])))
        found.update(name for name in names if name)
    if problems:
        rows.refuse("no usable label", problems, hint)
    return tuple(sorted(found, key=int) if all(map(_is_number, found)) else sorted(found))


def read_numbers(
    rows: Rows, column: str, values: Sequence[Sequence[object]], labels: Sequence[str], say: Say
) -> list[list[int]]:
    """The numbers of the classes that the labels of each row stand for.

    A label is written as a class's name or, where the names are not numbers themselves, as its
    number from 0. Whole numbers of a data set that names its classes itself are those of the
    classes, whatever they are called.

    Args:
        values: the labels of each row.
        labels: class names in the order of their numbers.
        say: for the error.

    Raises:
        DataError: a value that is no class.
    """
    number_of: dict[str | None, int] = {name: number for number, name in enumerate(labels)}
    positions = tuple(rows.class_names.get(column, ())) == tuple(labels)
    if not any(map(_is_number, labels)):  # 1 is the class called "1" where there is one
        number_of |= {str(number): number for number in range(len(labels))}

    def number(value: object) -> int | None:
        if positions and isinstance(value, int) and not isinstance(value, bool):
            return value if 0 <= value < len(labels) else None
        return number_of.get(label_name(value))

    numbers: list[list[int]] = []
    problems: list[tuple[int, str]] = []
    unknown: set[str | None] = set()
    for index, row in enumerate(values):
        found = [number(value) for value in row]
        if None in found:
            place = found.index(None)
            unknown.add(label_name(row[place]))
            problems.append((index, say(place, row[place])))
        numbers.append([known for known in found if known is not None])
    if problems:
        rows.refuse("unknown label", problems, _hint(labels, unknown))
    return numbers


def label_name(value: object) -> str | None:
    """A label as a name, whatever its type in the file; None where it cannot be one.

    Whole numbers may come as floats (from a parquet column that once had gaps), and everything
    from a csv file is a text.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    if isinstance(value, int):
        return str(value)
    return (value.strip() or None) if isinstance(value, str) else None


def _hint(labels: Sequence[str], unknown: Collection[str | None]) -> str:
    listed = [f"{name} ({number})" for number, name in enumerate(labels)]
    if len(listed) > _LISTED_LABELS:
        listed[_LISTED_LABELS:] = [f"and {len(listed) - _LISTED_LABELS} more"]
    hint = f"Known labels: {', '.join(listed)}."
    if "-1" in unknown:
        hint += " -1 stands for the hidden labels of GLUE's test sets: use another set."
    return hint


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal()
