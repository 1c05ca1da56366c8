"""Classification: one class for a text or a pair of texts."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Value
from numpy.typing import NDArray
from scipy.special import softmax

from dcft_cli.data.labels import LabelColumn, label_name
from dcft_cli.data.lists import written_list
from dcft_cli.data.prediction_set import Prediction, shortened
from dcft_cli.data.rows import Rows, format_value
from dcft_cli.errors import DataError, listed
from dcft_cli.recipe.schema import DataSection, TaskSection
from dcft_cli.tasks.calibration import softmax_calibration, softmax_temperature
from dcft_cli.tasks.decision import Decision
from dcft_cli.tasks.report import report_classes
from dcft_cli.tasks.text import TextTask

# A few rows to try things out may have a class each.
_MANY_CLASSES = 10


class Classification(TextTask):
    """Predict one of `labels`.

    The metrics of a user's own task are accuracy and F1: of class 1 if there are two classes,
    else the mean over the classes.
    """

    kind = "classification"
    problem_type = "single_label_classification"
    label_feature = Value("int64")
    class_column = "label"
    own_settings = ("calibrate",)
    choosable = ("temperature",)
    predicted_columns = ("prediction", "probability", "probabilities")

    def __init__(self, task: TaskSection, data: DataSection, labels: Sequence[str]) -> None:
        super().__init__(task, data, labels)
        if task.name is None:
            self.metrics = ("accuracy", "f1" if len(labels) == 2 else "macro_f1")

    @classmethod
    def find_labels(cls, rows: Rows, column: str, data: DataSection) -> tuple[str, ...]:
        """See `Task.find_labels`."""
        found = _label_column(rows, column)
        names = found.class_names()
        if not rows.class_names.get(column):
            _check_repeated(found, names)
        return names

    def read_labels(self, rows: Rows) -> list[int]:
        """See `TextTask.read_labels`."""
        column = _label_column(rows, self.label[0], self.labels)
        numbers = column.class_numbers(self.labels, self.order)
        return [number for (number,) in numbers]

    def label_counts(self, dataset: Dataset) -> Counter[int]:
        """See `Task.label_counts`."""
        return Counter(dataset["label"][:])

    def predicted(self, logits: NDArray[Any]) -> NDArray[Any]:
        """See `TextTask.predicted`."""
        classes: NDArray[np.intp] = logits.argmax(axis=-1)
        return classes

    def predictions(self, logits: NDArray[Any]) -> list[Prediction]:
        """See `TextTask.predictions`."""
        probabilities = softmax(logits.astype(np.float64) / self.decision.temperature, axis=-1)
        found = []
        for number, row in zip(self.predicted(logits), probabilities.tolist(), strict=True):
            named = {name: shortened(p) for name, p in zip(self.labels, row, strict=True)}
            name = self.labels[number]
            found.append({"prediction": name, "probability": named[name], "probabilities": named})
        return found

    def best_decision(self, logits: NDArray[Any], labels: NDArray[Any]) -> Decision:
        """See `TextTask.best_decision`."""
        return Decision(temperature=softmax_temperature(logits, labels))

    def report(self, logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, Any]:
        """See `TextTask.report`."""
        calibration = softmax_calibration(logits, labels, self.decision.temperature)
        by_class = report_classes(self.labels, labels, self.predicted(logits))
        return {**by_class, "calibration": calibration}

    def describe_target(self, target: int) -> str:
        """See `Task.describe_target`."""
        return self.labels[target]


def _check_repeated(column: LabelColumn, names: Sequence[str]) -> None:
    """Check that a column repeats its values, as classes do: identifiers do not.

    Raises:
        DataError: most rows have a value of their own.
    """
    rows = column.rows
    counts = Counter(filter(None, (label_name(value) for (value,) in column.values)))
    unique = sum(count == 1 for count in counts.values())
    if len(names) < _MANY_CLASSES or 2 * unique <= len(column.values):
        return
    found = (
        "has a different value in every row"
        if unique == len(column.values)
        else f"has {len(names):,} different values, {unique:,} of them in one row each of "
        f"{len(column.values):,}"
    )
    raise DataError(
        f"{rows.source}: `{column.name}` {found}: is it the label?",
        f"Name the label's column with data.label (columns: {listed(rows.columns)}). For numbers, "
        "set task.type=regression. If these are the classes, list them in task.labels.",
    )


def _label_column(rows: Rows, column: str, labels: Sequence[str] = ()) -> LabelColumn:
    values = rows.values(column, "data.label")

    def problem(value: object) -> str:
        is_list = isinstance(value, str) and value not in labels and written_list(value) is not None
        return f"is {format_value(value)}" if is_list else ""

    hint = "For any number of labels per row, set task.type=multi_label."
    rows.check(column, values, problem, "a list of labels, written as a text,", hint)
    hint = "A class is a text or a whole number; to predict numbers, set task.type=regression."
    return LabelColumn(rows, column, [(value,) for value in values], "is {value}", hint)
