"""Scores from predictions and labels, or from counts of them, to one number."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import f1_score

from dcft_cli.errors import TrainingError

Numbers = NDArray[Any]


def accuracy(predictions: Numbers, labels: Numbers) -> float:
    """Share of predictions (N,) that equal their label (N,)."""
    return float(np.mean(predictions == labels))


def f1(predictions: Numbers, labels: Numbers) -> float:
    """F1 of class 1 against class 0; 0 where class 1 is neither predicted nor present."""
    return float(f1_score(labels, predictions, average="binary", pos_label=1, zero_division=0.0))


def macro_f1(predictions: Numbers, labels: Numbers) -> float:
    """Mean of the F1 of every class that is predicted or present."""
    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def matthews_correlation(predictions: Numbers, labels: Numbers) -> float:
    """Matthews correlation of two classes, which is Pearson's of their numbers 0 and 1."""
    return pearson(predictions, labels)


def pearson(predictions: Numbers, labels: Numbers) -> float:
    """Pearson correlation.

    The correlation with a constant is undefined (0 / 0). It counts as 0, so that a model that
    predicts one value for everything, as happens early in training, scores as knowing nothing
    instead of breaking the comparison of checkpoints.
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
    """Spearman correlation: Pearson's of the ranks, where ties share their mean rank."""
    return pearson(rankdata(predictions), rankdata(labels))


def mse(predictions: Numbers, labels: Numbers) -> float:
    """Mean squared error; the lower, the better."""
    difference = np.asarray(predictions, np.float64) - np.asarray(labels, np.float64)
    return float(np.mean(difference**2))


METRICS: dict[str, Callable[[Numbers, Numbers], float]] = {
    metric.__name__: metric
    for metric in (accuracy, f1, macro_f1, matthews_correlation, pearson, spearman, mse)
}


def f1_of_counts(hits: Numbers, predicted: Numbers, present: Numbers) -> Numbers:
    """F1 from counts, elementwise; 0 where a class is neither predicted nor present.

    Args:
        hits: how often a class was rightly predicted.
        predicted: how often it was predicted.
        present: how often it should have been.
    """
    total = np.asarray(predicted) + np.asarray(present)
    f1s: Numbers = 2 * np.asarray(hits) / np.maximum(total, 1)
    return f1s


def macro_f1_of_counts(hits: Numbers, predicted: Numbers, present: Numbers) -> float:
    """Mean F1 of the classes that are predicted or present; the arguments of `f1_of_counts`."""
    there = np.asarray(predicted) + np.asarray(present) > 0
    return float(f1_of_counts(hits, predicted, present)[there].mean()) if there.any() else 0.0


LOWER_IS_BETTER = frozenset({"mse"})


def finite(predictions: Numbers) -> Numbers:
    """Gives `predictions` back, if they are numbers.

    Raises:
        TrainingError: NaN or infinity among them. An argmax over NaN is a class like any other:
            a broken model would get a score.
    """
    if not np.isfinite(predictions).all():
        raise TrainingError(
            "The model's predictions are not finite numbers, so they cannot be scored.",
            "Training has diverged: try a lower training.learning_rate or"
            " training.precision=float32.",
        )
    return predictions
