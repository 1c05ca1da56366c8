"""Scores by class and confusions."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from dcft_cli.tasks.report import class_scores, report_classes, report_labels

NAMES = ["a", "b", "c", "d"]


def confusion(label: str, prediction: str, count: int, share: float) -> dict[str, Any]:
    return {"label": label, "prediction": prediction, "count": count, "share": share}


def test_classes_by_hand() -> None:
    labels, predictions = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0, -1])
    report = report_classes(NAMES, labels, predictions)
    assert report["unit"] == "class"
    assert report["classes"] == {
        "a": class_scores(1, 2, 3),
        "b": class_scores(1, 3, 2),
        "c": {"support": 1, "predicted": 0, "precision": None, "recall": 0.0, "f1": 0.0},
        "d": {"support": 0, "predicted": 0, "precision": None, "recall": None, "f1": None},
    }
    assert report["classes"]["a"] == {
        "support": 3,
        "predicted": 2,
        "precision": 1 / 2,
        "recall": 1 / 3,
        "f1": 2 / 5,
    }
    assert report["confusions"] == [
        confusion("a", "b", 2, 2 / 3),
        confusion("b", "a", 1, 1 / 2),
        confusion("c", "(nothing)", 1, 1.0),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_they_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, 4, (2, 60))
    report = report_classes(NAMES, labels, predictions)
    expected = precision_recall_fscore_support(labels, predictions)
    for part, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [s[part] for s in report["classes"].values()] == pytest.approx(list(values))
    matrix = confusion_matrix(labels, predictions)
    np.fill_diagonal(matrix, 0)
    found = np.zeros_like(matrix)
    for c in report["confusions"]:
        found[NAMES.index(c["label"]), NAMES.index(c["prediction"])] = c["count"]
    assert (found == matrix).all()
    counts = [c["count"] for c in report["confusions"]]
    assert counts == sorted(counts, reverse=True)


def test_all_right_has_no_confusions() -> None:
    numbers = np.array([0, 1, 2, 3])
    assert report_classes(NAMES, numbers, numbers)["confusions"] == []


def test_labels_by_hand() -> None:
    present = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]], bool)
    predicted = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]], bool)
    report = report_labels(NAMES[:3], present, predicted, [0.5, 0.4, 0.3])
    assert report["unit"] == "label"
    assert report["classes"] == {
        "a": {**class_scores(1, 1, 3), "threshold": 0.5},
        "b": {**class_scores(1, 2, 1), "threshold": 0.4},
        "c": {**class_scores(0, 2, 1), "threshold": 0.3},
    }
    # Row 0 misses c and is given b, row 1 misses a and is given c. Rows 2 and 3 swap nothing.
    assert report["confusions"] == [confusion("a", "c", 1, 1 / 3), confusion("c", "b", 1, 1.0)]
