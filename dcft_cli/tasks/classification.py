"""Classification: one class for one text or a pair."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, Value
from numpy.typing import NDArray

from dcft_cli.data.labels import Say, find_names, read_numbers
from dcft_cli.data.rows import Rows, shown
from dcft_cli.errors import DataError
from dcft_cli.tasks.base import RowSet, class_settings
from dcft_cli.tasks.prior import Prior, prior_of_classes
from dcft_cli.tasks.text import TextTask

if TYPE_CHECKING:
    from torch import Tensor


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
    label_feature = Value("int64")

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
        super().__init__(text, metrics, max_length)
        self.label = label
        self.labels = tuple(labels)

    @property
    def model_settings(self) -> Mapping[str, Any]:
        """See `Task.model_settings`."""
        return {**class_settings(self.labels), "problem_type": "single_label_classification"}

    def read_labels(self, rows: Rows) -> list[int]:
        """See `TextTask.read_labels`."""
        values = _labels(rows, self.label)
        numbers = read_numbers(rows, self.label, values, self.labels, _say(self.label))
        return [number for (number,) in numbers]

    def label_counts(self, dataset: Dataset) -> Counter[int]:
        """See `Task.label_counts`."""
        return Counter(dataset["label"][:])

    def check_training(self, rows: RowSet) -> None:
        """See `Task.check_training`."""
        counts = self.label_counts(rows.dataset)
        if len(counts) == 1:
            (number,) = counts
            raise DataError(
                f"{rows.origin}: every row has the same label, {self.labels[number]}.",
                "A classifier learns from rows of at least two classes.",
            )

    def prior(self, dataset: Dataset) -> Prior:
        """See `Task.prior`."""
        return prior_of_classes(np.bincount(dataset["label"][:], minlength=len(self.labels)))

    def linear_loss(self, logits: "Tensor", targets: Mapping[str, "Tensor"]) -> "Tensor":
        """See `Task.linear_loss`."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, targets["labels"])

    def failure(self, logits: NDArray[Any], labels: NDArray[Any]) -> str:
        """See `TextTask.failure`."""
        classes = set(self.predicted(logits).tolist())
        if len(classes) > 1 or len(set(labels.tolist())) == 1:
            return ""
        return f"every row is predicted {self.labels[classes.pop()]}"

    def predicted(self, logits: NDArray[Any]) -> NDArray[Any]:
        """See `TextTask.predicted`."""
        classes: NDArray[np.intp] = logits.argmax(axis=-1)
        return classes


def find_labels(rows: Rows, column: str) -> tuple[str, ...]:
    """The class names in `column`, sorted; in numeric order where all are whole numbers.

    Raises:
        DataError: no such column; a value that names no class; fewer than two classes.
    """
    hint = "A class is a text or a whole number; to predict numbers, set task.type=regression."
    names = find_names(rows, column, _labels(rows, column), _say(column), hint)
    if len(names) < 2:
        raise DataError(
            f"{rows.origin}: every row has the same label, {names[0]}.",
            "A classifier learns from rows of at least two classes.",
        )
    return names


def _labels(rows: Rows, column: str) -> list[tuple[object]]:
    return [(value,) for value in rows.values(column, "data.label")]


def _say(column: str) -> Say:
    return lambda _, value: f"`{column}` is {shown(value)}"
