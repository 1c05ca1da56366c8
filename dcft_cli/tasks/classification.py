"""Classification: one class for a text or a pair of texts."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Value
from numpy.typing import NDArray

from dcft_cli.data.labels import LabelColumn
from dcft_cli.data.rows import Rows
from dcft_cli.recipe.schema import DataSection, TaskSection
from dcft_cli.tasks.calibration import softmax_calibration, softmax_temperature
from dcft_cli.tasks.decision import Decision
from dcft_cli.tasks.report import report_classes
from dcft_cli.tasks.text import TextTask


class Classification(TextTask):
    """Predict one of `labels`.

    The metrics of a user's own task are accuracy and F1: of class 1 if there are two classes,
    else the mean over the classes.
    """

    kind = "classification"
    problem_type = "single_label_classification"
    label_feature = Value("int64")
    choosable = ("temperature",)

    def __init__(self, task: TaskSection, data: DataSection, labels: Sequence[str]) -> None:
        super().__init__(task, data, labels)
        if task.name is None:
            self.metrics = ("accuracy", "f1" if len(labels) == 2 else "macro_f1")

    @classmethod
    def find_labels(cls, rows: Rows, column: str, data: DataSection) -> tuple[str, ...]:
        """See `Task.find_labels`."""
        hint = "A class is a text or a whole number; to predict numbers, set task.type=regression."
        return _label_column(rows, column).class_names(hint)

    def read_labels(self, rows: Rows) -> list[int]:
        """See `TextTask.read_labels`."""
        numbers = _label_column(rows, self.label[0]).class_numbers(self.labels)
        return [number for (number,) in numbers]

    def label_counts(self, dataset: Dataset) -> Counter[int]:
        """See `Task.label_counts`."""
        return Counter(dataset["label"][:])

    def predicted(self, logits: NDArray[Any]) -> NDArray[Any]:
        """See `TextTask.predicted`."""
        classes: NDArray[np.intp] = logits.argmax(axis=-1)
        return classes

    def best_decision(self, logits: NDArray[Any], labels: NDArray[Any]) -> Decision:
        """See `TextTask.best_decision`."""
        return Decision(temperature=softmax_temperature(logits, labels))

    def report(self, logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, Any]:
        """See `TextTask.report`."""
        calibration = softmax_calibration(logits, labels, self.decision.temperature)
        by_class = report_classes(self.labels, labels, self.predicted(logits))
        return {**by_class, "calibration": calibration}


def _label_column(rows: Rows, column: str) -> LabelColumn:
    values = [(value,) for value in rows.values(column, "data.label")]
    return LabelColumn(rows, column, values, "is {value}")
