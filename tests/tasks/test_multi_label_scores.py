import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from dcft_cli.tasks.multi_label_scores import (
    average_precision,
    best_threshold,
    score_label_sets,
)


def test_scores_by_hand() -> None:
    present = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
    given = np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0]], dtype=bool)
    logits = np.array([[3.0, 0.0, 0.0], [2.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    scores = score_label_sets(logits, given, present)
    assert scores == pytest.approx(
        {
            "micro_f1": 2 * 2 / (3 + 3),
            "macro_f1": (1 + 0 + 0) / 3,
            "mean_average_precision": (1 + 1 / 2) / 2,
            "subset_accuracy": 2 / 3,
            "best_micro_f1": 2 * 2 / (2 + 3),  # those of logits 3 and 2
            "best_micro_f1_threshold": 1 / (1 + np.exp(-2)),
        }
    )
    assert all(type(score) is float for score in scores.values())


@pytest.mark.parametrize("seed", range(10))
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    present = rng.random((40, 6)) < rng.random(6) * 0.6
    present[0] = True
    logits = np.round(rng.normal(size=(40, 6)) + present, 1)  # rounded: ties
    given = logits > 0.8
    best, threshold = best_threshold(logits, present)
    assert score_label_sets(logits, given, present) == pytest.approx(
        {
            "micro_f1": sklearn_metrics.f1_score(present, given, average="micro"),
            "macro_f1": sklearn_metrics.f1_score(present, given, average="macro"),
            "mean_average_precision": sklearn_metrics.average_precision_score(
                present, logits, average="macro"
            ),
            "subset_accuracy": sklearn_metrics.accuracy_score(present, given),
            "best_micro_f1": best,
            "best_micro_f1_threshold": threshold,
        }
    )
    precision, recall, _ = sklearn_metrics.precision_recall_curve(present.ravel(), logits.ravel())
    assert best == pytest.approx(np.max(2 * precision * recall / (precision + recall + 1e-300)))
    given = 1 / (1 + np.exp(-logits)) >= threshold - 1e-12
    assert best == pytest.approx(sklearn_metrics.f1_score(present, given, average="micro"))


def test_labels_that_never_occur_count_in_no_mean() -> None:
    present = np.array([[1, 0], [0, 0]], dtype=bool)
    logits = np.array([[1.0, -1.0], [-1.0, -1.0]])
    scores = score_label_sets(logits, logits > 0, present)
    assert scores.pop("best_micro_f1_threshold") == pytest.approx(1 / (1 + np.exp(-1)))
    assert scores == dict.fromkeys(scores, 1.0)


def test_no_label_anywhere() -> None:
    nothing = np.zeros((3, 2), dtype=bool)
    scores = score_label_sets(np.zeros((3, 2)), nothing, nothing)
    assert scores == {
        "micro_f1": 0.0,
        "macro_f1": 0.0,
        "mean_average_precision": 0.0,
        "subset_accuracy": 1.0,
        "best_micro_f1": 0.0,
        "best_micro_f1_threshold": 0.5,
    }


def test_ties_share_their_lowest_rank() -> None:
    present = np.array([True, False, False, True])
    assert average_precision(np.zeros(4), present) == 0.5
    assert average_precision(np.array([2.0, 1.0, 1.0, 1.0]), present) == pytest.approx(
        (1 + 2 / 4) / 2
    )
