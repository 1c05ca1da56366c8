"""Multi-label classification: any number of labels, or none, for a text or a pair of texts."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, List, Value
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import average_precision_score, f1_score

from dcft_cli.data.labels import LabelColumn, label_name
from dcft_cli.data.lists import written_list
from dcft_cli.data.prediction_set import Prediction, shortened
from dcft_cli.data.rows import Rows, RowSet, format_value
from dcft_cli.errors import DataError, RecipeError
from dcft_cli.recipe.schema import DataSection, TaskSection
from dcft_cli.tasks.base import Tensor
from dcft_cli.tasks.metrics import require_finite
from dcft_cli.tasks.prior import Prior, prior_of_labels
from dcft_cli.tasks.text import TextTask

_ZERO_OR_ONE = {"1": 1.0, "true": 1.0, "0": 0.0, "false": 0.0}
_OTHER_SEPARATORS = "|;,"
_UNQUOTED_LIST = re.compile(r"\s*\[[^\[\]]*,[^\[\]]*\]\s*")
_LIST_HINT = (
    'Each row lists its labels, such as ["sports", "news"], or [] for none. In csv and tsv files'
    " they are separated by data.separator; for one column of 0 and 1 per label, set"
    ' data.label="[COLUMN, COLUMN]".'
)


class MultiLabel(TextTask):
    """Predict which of `labels` a text has; the model is trained on the binary cross-entropy.

    The label column lists each row's labels. Several columns hold 0 and 1, one for each label.
    """

    kind = "multi_label"
    problem_type = "multi_label_classification"
    several_label_columns = True
    label_feature = List(Value("float32"))
    metrics = (
        "micro_f1",
        "macro_f1",
        "mean_average_precision",
        "subset_accuracy",
        "best_micro_f1",
    )

    def __init__(self, task: TaskSection, data: DataSection, labels: Sequence[str]) -> None:
        super().__init__(task, data, labels)
        if len(self.label) > 1 and set(labels) != set(self.label):
            raise RecipeError(
                f"The labels ({', '.join(labels)}) are not the columns that data.label names"
                f" ({', '.join(self.label)}).",
                "Each column is the label of its name: leave task.labels out.",
            )
        self.separator = data.separator
        self.threshold = task.threshold

    @classmethod
    def find_labels(cls, rows: Rows, column: str, data: DataSection) -> tuple[str, ...]:
        """See `Task.find_labels`; raises DataError too if another separator seems to be used."""
        names = _label_column(rows, column, data.separator).class_names()
        values = rows.values(column, "data.label")
        texts = [value for value in values if isinstance(value, str) and "[" not in value[:1]]
        if texts and not any(data.separator in text for text in texts):
            for other in _OTHER_SEPARATORS:
                if count := sum(other in text for text in texts):
                    raise DataError(
                        f"{rows.source}: no row of `{column}` contains the label separator"
                        f" {format_value(data.separator)}, but {count:,} of {len(texts):,} contain"
                        f" {format_value(other)}.",
                        f'Set data.separator="{other}"; if it is part of the names, list them in'
                        " task.labels.",
                    )
        return names

    def read_labels(self, rows: Rows) -> list[list[float]]:
        """See `TextTask.read_labels`: 1 for a label that the row has, else 0, (labels,)."""
        if len(self.label) > 1:
            by_label = [_zeros_and_ones(rows, column) for column in self.labels]
            return [list(row) for row in zip(*by_label, strict=True)]
        column = _label_column(rows, self.label[0], self.separator)
        numbers = column.class_numbers(self.labels, self.order)
        return [[float(label in row) for label in range(len(self.labels))] for row in numbers]

    def label_counts(self, dataset: Dataset) -> Counter[int]:
        """See `Task.label_counts`."""
        counts = np.sum(dataset["label"][:], axis=0)
        return Counter({label: int(count) for label, count in enumerate(counts)})

    def check_training(self, rows: RowSet) -> None:
        """See `Task.check_training`."""
        if len(set(map(tuple, rows.dataset["label"][:]))) == 1:
            raise DataError(
                f"{rows.source}: every row has the same labels.",
                "A classifier learns from rows with different labels.",
            )

    def prior(self, dataset: Dataset) -> Prior:
        """See `Task.prior`."""
        return prior_of_labels(np.sum(dataset["label"][:], axis=0), len(dataset))

    def linear_loss(self, logits: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """See `Task.linear_loss`."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(logits, targets["labels"])

    def predicted(self, logits: NDArray[Any]) -> NDArray[np.bool_]:
        """See `TextTask.predicted`."""
        predicted: NDArray[np.bool_] = logits >= math.log(self.threshold / (1 - self.threshold))
        return predicted

    def predictions(self, logits: NDArray[Any]) -> list[Prediction]:
        """See `TextTask.predictions`."""
        probabilities = expit(logits.astype(np.float64) / self.decision.temperature)
        return [
            {
                "prediction": self.describe_target(chosen),
                "probabilities": {
                    name: shortened(p) for name, p in zip(self.labels, row, strict=True)
                },
            }
            for chosen, row in zip(self.predicted(logits), probabilities.tolist(), strict=True)
        ]

    def describe_target(self, target: Sequence[float]) -> list[str]:
        """See `Task.describe_target`."""
        return [name for name, present in zip(self.labels, target, strict=True) if present]

    def score(self, logits: NDArray[Any], label_ids: NDArray[Any]) -> dict[str, float]:
        """See `EvaluationSet.score`.

        Returns:
            `micro_f1`: F1 over all pairs of row and label. `macro_f1`: mean F1 of the labels that
            are predicted or present. `mean_average_precision`: mean over the labels that are
            present. `subset_accuracy`: share of rows with exactly the right set.
            `best_micro_f1`: score of the best threshold for this very set, with that threshold.
        """
        predicted = self.predicted(require_finite(logits))
        present = np.asarray(label_ids) > 0.5
        precisions = [
            average_precision_score(present[:, label], logits[:, label])
            for label in np.flatnonzero(present.any(0))
        ]
        # NaN leaves the labels out of the mean that are neither predicted nor present.
        macro_f1 = f1_score(present, predicted, average="macro", zero_division=np.nan)
        best, threshold = best_threshold(logits.reshape(-1), present.reshape(-1))
        return {
            "micro_f1": float(f1_score(present, predicted, average="micro", zero_division=0.0)),
            "macro_f1": float(np.nan_to_num(macro_f1)),
            "mean_average_precision": float(np.mean(precisions)) if precisions else 0.0,
            "subset_accuracy": float((predicted == present).all(1).mean()),
            "best_micro_f1": best,
            "best_micro_f1_threshold": threshold,
        }


def best_threshold(logits: NDArray[Any], present: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the best F1 that any threshold reaches, and the highest such probability.

    Args:
        logits: (pairs of row and label,).
        present: whether the row has the label, (pairs,).
    """
    order = np.argsort(-logits, kind="stable")
    ranked, hits = logits[order], np.cumsum(present[order])
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)  # equal logits stay together
    predicted = np.flatnonzero(last_of_tie) + 1
    f1s = 2 * hits[last_of_tie] / (predicted + present.sum())
    best = int(f1s.argmax())
    return float(f1s[best]), float(expit(ranked[last_of_tie][best]))


def _label_column(rows: Rows, column: str, separator: str) -> LabelColumn:
    """Return the labels that the rows list in `column`, and report rows without a list."""

    def split(value: object) -> object:
        if not isinstance(value, str):
            return value
        listed = written_list(value)
        if listed is not None or _UNQUOTED_LIST.fullmatch(value):
            return value if listed is None else listed
        return [part.strip() for part in value.split(separator)] if value.strip() else []

    def problem(value: object) -> str:
        if not isinstance(value, list):
            return "is missing" if value is None else f"is {format_value(value)}, not a list"
        names = [label_name(label) for label in value]
        for label, name in zip(value, names, strict=True):
            if names.count(name) > 1:
                return f"contains {format_value(label)} twice"
        return ""

    values: list[Any] = [split(value) for value in rows.values(column, "data.label")]
    if count := _indicator_length(values):
        raise DataError(
            f"{rows.source}: every list in `{column}` has {count} values of 0 and 1: one for each"
            " label, it seems.",
            "List the names of the labels that a row has, or make a column of 0 and 1 for each:"
            ' data.label="[NAME, NAME]".',
        )
    rows.check(column, values, problem, "no usable list of labels", _LIST_HINT)
    lists = [value if isinstance(value, list) else [] for value in values]
    return LabelColumn(rows, column, lists, "contains {value}", _LIST_HINT)


def _indicator_length(values: Sequence[object]) -> int:
    """Return the length of all lists if they seem to say 0 or 1 for each label, else 0.

    A list of labels contains none twice.
    """
    lists = [value for value in values if isinstance(value, list)]
    lengths = {len(value) for value in lists}
    indicators = (
        len(lengths) == 1
        and all(label in (0, 1) for value in lists for label in value)
        and any(value.count(label) > 1 for value in lists for label in value)
    )
    return lengths.pop() if indicators else 0


def _zeros_and_ones(rows: Rows, column: str) -> list[float]:
    """Return the numbers in the column of one label, and report values other than 0 and 1."""

    def number(value: object) -> float | None:
        return _ZERO_OR_ONE.get((label_name(value) or "").lower())

    values = rows.values(column, "data.label")
    rows.check(
        column,
        values,
        lambda value: f"is {format_value(value)}" if number(value) is None else "",
        "label that is neither 0 nor 1",
        "The column of a label holds 1 for the rows that have it, and 0 for the others.",
    )
    return [number(value) or 0.0 for value in values]
