"""Classification: one class for one text or a pair."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcft_cli.errors import DataError
from dcft_cli.tasks.base import RowSet
from dcft_cli.tasks.rows import Rows, shown
from dcft_cli.tasks.text import TextTask

_LISTED_LABELS = 20


class Classification(TextTask):
    """Predicts one of `labels`.

    In the data a label is written as its name or, where the names are not numbers themselves,
    as its number from 0.

    Args:
        labels: class names in the order of their numbers.
        text: name of the text column, or of the two.
        label: name of the label column.
        metrics: names in `METRICS`; None takes accuracy, and F1 (of class 1 where there are
            two classes, else the mean over classes).
        max_length: longest input in tokens.
    """

    kind = "classification"
    label_type = "int64"

    def __init__(
        self,
        labels: Sequence[str],
        text: Sequence[str],
        label: str,
        metrics: Sequence[str] | None,
        max_length: int,
    ) -> None:
        if metrics is None:
            metrics = ("accuracy", "f1" if len(labels) == 2 else "macro_f1")
        super().__init__(text, label, metrics, max_length)
        self.labels = tuple(labels)
        self._number_of = _numbers(self.labels)

    @property
    def model_settings(self) -> Mapping[str, Any]:
        """See `Task.model_settings`."""
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {name: number for number, name in enumerate(self.labels)},
            "problem_type": "single_label_classification",
        }

    def read_labels(self, rows: Rows) -> list[int]:
        """See `TextTask.read_labels`."""
        values = rows.values(self.label, "data.label")
        names = [_name(value) for value in values]
        problems = [
            (index, f"`{self.label}` is {shown(value)}")
            for index, (value, name) in enumerate(zip(values, names, strict=True))
            if name not in self._number_of
        ]
        if problems:
            rows.refuse("unknown label", problems, self._hint({name for name in names if name}))
        return [self._number_of[name] for name in names if name is not None]

    def _hint(self, names: set[str]) -> str:
        listed = [f"{name} ({number})" for number, name in enumerate(self.labels)]
        if len(listed) > _LISTED_LABELS:
            listed[_LISTED_LABELS:] = [f"and {len(listed) - _LISTED_LABELS} more"]
        hint = f"Known labels: {', '.join(listed)}."
        if "-1" in names:
            hint += " -1 stands for the hidden labels of GLUE's test sets: use another set."
        return hint

    def check_training(self, rows: RowSet) -> None:
        """See `Task.check_training`."""
        counts = Counter(rows.dataset["label"][:])
        if len(counts) == 1:
            (number,) = counts
            raise DataError(
                f"{rows.origin}: every row has the same label, {self.labels[number]}.",
                "A classifier learns from rows of at least two classes.",
            )

    def predicted(self, logits: NDArray[Any]) -> NDArray[Any]:
        """See `TextTask.predicted`."""
        classes: NDArray[np.intp] = logits.argmax(axis=-1)
        return classes


def find_labels(rows: Rows, column: str) -> tuple[str, ...]:
    """The class names in `column`, sorted; in numeric order where all are whole numbers.

    Raises:
        DataError: no such column; a value that names no class; fewer than two classes.
    """
    values = rows.values(column, "data.label")
    names = [_name(value) for value in values]
    problems = [
        (index, f"`{column}` is {shown(values[index])}")
        for index, name in enumerate(names)
        if name is None
    ]
    if problems:
        hint = "A class is a text or a whole number; to predict numbers, set task.type=regression."
        rows.refuse("no usable label", problems, hint)
    found = {name for name in names if name is not None}
    if len(found) < 2:
        raise DataError(
            f"{rows.origin}: every row has the same label, {found.pop()}.",
            "A classifier learns from rows of at least two classes.",
        )
    return tuple(sorted(found, key=int) if all(map(_is_number, found)) else sorted(found))


def _numbers(labels: Sequence[str]) -> dict[str | None, int]:
    """The number of each class by all the ways a file may write it."""
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(labels)}
    if not any(map(_is_number, labels)):  # 1 is the class called "1" where there is one
        numbers |= {str(number): number for number in range(len(labels))}
    return numbers


def _name(value: object) -> str | None:
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


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal()
