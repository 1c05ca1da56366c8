"""Metrics of predictions against labels."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import f1_score, mean_squared_error

from dcft_cli.errors import TrainingError

Numbers = NDArray[Any]


def accuracy(predictions: Numbers, labels: Numbers) -> float:
    """Return the share of predictions (N,) that equal their label (N,)."""
    return float(np.mean(predictions == labels))


def f1(predictions: Numbers, labels: Numbers) -> float:
    """Return the F1 of class 1 against class 0; 0 if class 1 is neither predicted nor present."""
    return float(f1_score(labels, predictions, average="binary", pos_label=1, zero_division=0.0))


def macro_f1(predictions: Numbers, labels: Numbers) -> float:
    """Return the mean F1 of the classes that are predicted or present; -1 predicts none."""
    classes = np.setdiff1d(np.union1d(predictions, labels), [-1])
    scores = f1_score(labels, predictions, labels=classes, average="macro", zero_division=0.0)
    return float(scores)


def matthews_correlation(predictions: Numbers, labels: Numbers) -> float:
    """Return the Matthews correlation of two classes, which is Pearson's of their numbers."""
    return pearson(predictions, labels)


def pearson(predictions: Numbers, labels: Numbers) -> float:
    """Return the Pearson correlation.

    The correlation with a constant is undefined (0 / 0). It counts as 0, so that a model that
    predicts one value for everything, as happens early in training, gets the score of knowing
    nothing, and checkpoints can still be compared.
    """
    x = np.asarray(predictions, dtype=np.float64)
    y = np.asarray(labels, dtype=np.float64)
    if x.min() == x.max() or y.min() == y.max():
        return 0.0
    x = x - x.mean()
    y = y - y.mean()
    norm = np.linalg.norm(x) * np.linalg.norm(y)
    if norm == 0:  # squares of tiny numbers can vanish
        return 0.0
    return float(np.clip(x @ y / norm, -1, 1))


def spearman(predictions: Numbers, labels: Numbers) -> float:
    """Return the Spearman correlation: Pearson's of the ranks, where ties share their mean rank."""
    return pearson(rankdata(predictions), rankdata(labels))


def mse(predictions: Numbers, labels: Numbers) -> float:
    """Return the mean squared error; lower is better."""
    return float(mean_squared_error(labels, predictions))


METRICS: dict[str, Callable[[Numbers, Numbers], float]] = {
    metric.__name__: metric
    for metric in (accuracy, f1, macro_f1, matthews_correlation, pearson, spearman, mse)
}


_LOWER_IS_BETTER = ("mse",)


def greater_is_better(metric: str) -> bool:
    """Return whether a higher score is better; the metric may have the prefix of its set."""
    return not metric.endswith(_LOWER_IS_BETTER)


def require_finite(predictions: Numbers) -> Numbers:
    """Return `predictions` if they are finite.

    Raises:
        TrainingError: there is a NaN or an infinity. An argmax over NaN is a valid class, so a
            broken model would get a score.
    """
    if not np.isfinite(predictions).all():
        raise TrainingError(
            "The model's predictions are not finite numbers, so they cannot be scored.",
            "Training has diverged: try a lower training.learning_rate or"
            " training.precision=float32.",
        )
    return predictions
