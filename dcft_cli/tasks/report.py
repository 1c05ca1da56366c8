"""Where a model fails: scores by class, and the most frequent confusions.

A report is plain data, written to metrics.json and to the output of `--json`:

- `unit`: what a row of the table is: a class, a label, or a type of entity.
- `classes`: by name `support` (true ones), `predicted`, `precision`, `recall`, `f1`; for labels
  `threshold` too. A share of nothing is None.
- `confusions`: `label`, `prediction`, `count`, and `share` of those with that label; the most
  frequent first.
- `calibration`: of tasks/calibration.py.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

NOTHING = "(nothing)"
"""Prediction where there is none."""


class ClassScores(TypedDict):
    """Scores of one class."""

    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


class Confusion(TypedDict):
    """How often `prediction` is given instead of `label`."""

    label: str
    prediction: str
    count: int
    share: float


def class_scores(hits: int, predicted: int, support: int) -> ClassScores:
    """Return the scores of a class from counts: right predictions, all of them, and true ones."""
    return {
        "support": int(support),
        "predicted": int(predicted),
        "precision": hits / predicted if predicted else None,
        "recall": hits / support if support else None,
        "f1": 2 * hits / (predicted + support) if predicted + support else None,
    }


def report_classes(
    names: Sequence[str], labels: NDArray[Any], predictions: NDArray[Any]
) -> dict[str, Any]:
    """Report on predictions of one class each.

    Args:
        names: of all classes.
        labels: true class numbers, (N,).
        predictions: predicted class numbers, (N,); -1 for none.
    """
    count = len(names)
    support = np.bincount(labels, minlength=count)
    predicted = np.bincount(predictions[predictions >= 0], minlength=count)
    hits = np.bincount(labels[labels == predictions], minlength=count)
    # Pairs that occur, not a matrix: there may be thousands of classes.
    wrong = labels != predictions
    pairs, counts = np.unique(
        np.stack([labels[wrong], predictions[wrong]]), axis=1, return_counts=True
    )
    return {
        "unit": "class",
        "classes": {
            name: class_scores(*map(int, numbers))
            for name, *numbers in zip(names, hits, predicted, support, strict=True)
        },
        "confusions": confusions([*names, NOTHING], zip(*pairs, counts, strict=True), support),
    }


def report_labels(
    names: Sequence[str],
    present: NDArray[Any],
    predicted: NDArray[Any],
    thresholds: Sequence[float],
) -> dict[str, Any]:
    """Report on predictions of any number of labels each.

    A confusion is a row that misses one label and is given another, wrong one.

    Args:
        names: of all labels.
        present: whether the row has the label, (N, labels).
        predicted: whether it is predicted, (N, labels).
        thresholds: of each label.
    """
    missed = (present & ~predicted).astype(np.float64)
    together = missed.T @ (predicted & ~present)
    support = present.sum(0)
    counts = zip((present & predicted).sum(0), predicted.sum(0), support, strict=True)
    scores = [class_scores(*map(int, numbers)) for numbers in counts]
    pairs = zip(*np.nonzero(together), together[together > 0].astype(int), strict=True)
    return {
        "unit": "label",
        "classes": {
            name: {**of_label, "threshold": threshold}
            for name, of_label, threshold in zip(names, scores, thresholds, strict=True)
        },
        "confusions": confusions(names, pairs, support),
    }


def confusions(
    names: Sequence[str],
    counts: Iterable[tuple[int, int, int]],
    support: Sequence[int] | NDArray[Any],
) -> list[Confusion]:
    """Return confusions from (label, prediction, count), the most frequent first.

    Args:
        names: by number.
        support: number of true ones of each label.
    """
    found: list[Confusion] = [
        {
            "label": names[label],
            "prediction": names[prediction],
            "count": int(count),
            "share": float(count / support[label]),
        }
        for label, prediction, count in counts
    ]
    return sorted(found, key=lambda c: (-c["count"], c["label"], c["prediction"]))
