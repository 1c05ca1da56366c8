"""Multi-label classification: any number of labels, or none, for a text or a pair of texts."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from datasets import Dataset, List, Value
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, f1_score

from dcft_cli.data.columns import SEPARATORS
from dcft_cli.data.labels import LabelColumn, label_name
from dcft_cli.data.lists import written_list
from dcft_cli.data.prediction_set import Prediction, shortened
from dcft_cli.data.rows import Rows, RowSet, format_value
from dcft_cli.errors import DataError, RecipeError
from dcft_cli.recipe.schema import DataSection, TaskSection
from dcft_cli.tasks.base import Tensor
from dcft_cli.tasks.calibration import sigmoid_calibration, sigmoid_temperature
from dcft_cli.tasks.class_weights import balanced_labels, named_weights
from dcft_cli.tasks.decision import Decision
from dcft_cli.tasks.metrics import require_finite
from dcft_cli.tasks.prior import Prior, prior_of_labels
from dcft_cli.tasks.report import report_labels
from dcft_cli.tasks.text import TextTask

_DEFAULT_THRESHOLD = 0.5
_ZERO_OR_ONE = {"1": 1.0, "true": 1.0, "0": 0.0, "false": 0.0}
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
    own_settings = ("calibrate", "threshold")
    choosable = ("temperature", "thresholds")
    label_feature = List(Value("float32"))
    metrics = (
        "micro_f1",
        "macro_f1",
        "mean_average_precision",
        "subset_accuracy",
        "best_micro_f1",
    )
    predicted_columns = ("prediction", "probabilities")

    def __init__(self, task: TaskSection, data: DataSection, labels: Sequence[str]) -> None:
        super().__init__(task, data, labels)
        if len(self.label) > 1 and set(labels) != set(self.label):
            raise RecipeError(
                f"The labels ({', '.join(labels)}) are not the columns that data.label names"
                f" ({', '.join(self.label)}).",
                "Each column is the label of its name: leave task.labels out.",
            )
        self.separator = data.separator
        self.per_label = task.threshold == "best_per_label"
        given = task.threshold if isinstance(task.threshold, float) else _DEFAULT_THRESHOLD
        self.decision = Decision(thresholds=given)

    @classmethod
    def find_labels(cls, rows: Rows, column: str, data: DataSection) -> tuple[str, ...]:
        """See `Task.find_labels`; raises DataError too if another separator seems to be used."""
        names = _label_column(rows, column, data.separator).class_names()
        values = rows.values(column, "data.label")
        texts = [value for value in values if isinstance(value, str) and "[" not in value[:1]]
        if texts and not any(data.separator in text for text in texts):
            for other in SEPARATORS:
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

    def weight_classes(self, weights: str | Mapping[str, float], dataset: Dataset) -> None:
        """See `Task.weight_classes`: a label's weight is that of the rows that have it."""
        self.class_weights = (
            balanced_labels(self._counts(dataset), len(dataset))
            if isinstance(weights, str)
            else named_weights(weights, self.labels)
        )

    def prior(self, dataset: Dataset, *, weighted: bool = True) -> Prior:
        """See `Task.prior`; without weights, all labels that at least half of the rows have."""
        weights = self.class_weights if weighted and self.class_weights is not None else 1.0
        return prior_of_labels(self._counts(dataset), len(dataset), weights)

    def linear_loss(self, logits: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """See `Task.linear_loss`."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        return binary_cross_entropy_with_logits(logits, targets["labels"], pos_weight=weights)

    @property
    def thresholds(self) -> list[float]:
        """The threshold of each label."""
        thresholds = self.decision.thresholds
        if isinstance(thresholds, Mapping):
            return [thresholds[name] for name in self.labels]
        assert thresholds is not None
        return [thresholds] * len(self.labels)

    def predicted(self, logits: NDArray[Any]) -> NDArray[np.bool_]:
        """See `TextTask.predicted`."""
        predicted: NDArray[np.bool_]
        predicted = logits / self.decision.temperature >= logit(self.thresholds)
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

    def best_decision(self, logits: NDArray[Any], labels: NDArray[Any]) -> Decision:
        """See `TextTask.best_decision`: the threshold with the best F1 of all pairs, or of each."""
        present, decision = labels > 0.5, self.decision
        if "temperature" in self.chosen:
            decision = replace(decision, temperature=sigmoid_temperature(logits, present))
        if "thresholds" not in self.chosen:
            return decision
        if not present.any():
            return replace(decision, thresholds=_DEFAULT_THRESHOLD)
        logits = logits / decision.temperature
        _, common = best_threshold(logits.reshape(-1), present.reshape(-1))
        if not self.per_label:
            return replace(decision, thresholds=common)
        # No threshold is the best one of a label that never occurs.
        by_label = {
            name: best_threshold(logits[:, n], present[:, n])[1] if present[:, n].any() else common
            for n, name in enumerate(self.labels)
        }
        return replace(decision, thresholds=by_label)

    def report(self, logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, Any]:
        """See `TextTask.report`."""
        present = labels > 0.5
        by_label = report_labels(self.labels, present, self.predicted(logits), self.thresholds)
        calibration = sigmoid_calibration(logits, present, self.decision.temperature)
        return {**by_label, "calibration": calibration}

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
        scaled = (logits / self.decision.temperature).reshape(-1)
        best, threshold = best_threshold(scaled, present.reshape(-1))
        return {
            "micro_f1": float(f1_score(present, predicted, average="micro", zero_division=0.0)),
            "macro_f1": float(np.nan_to_num(macro_f1)),
            "mean_average_precision": float(np.mean(precisions)) if precisions else 0.0,
            "subset_accuracy": float((predicted == present).all(1).mean()),
            "best_micro_f1": best,
            "best_micro_f1_threshold": threshold,
        }


def best_threshold(logits: NDArray[Any], present: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the best F1 that any threshold reaches, and the highest such threshold.

    It lies halfway between the logits on its two sides, so that rounding does not cross it.

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
    logits = np.append(ranked[last_of_tie], ranked[-1] - 1).astype(np.float64)
    middle = (logits[best] + logits[best + 1]) / 2
    # Beyond a logit of 36 the nearest float64 is 1, which no probability would reach.
    return float(f1s[best]), float(expit(min(middle, 30.0)))


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
