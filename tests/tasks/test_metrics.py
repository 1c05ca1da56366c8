import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from dcft_cli.errors import TrainingError
from dcft_cli.tasks import metrics
from dcft_cli.tasks.metrics import METRICS


@pytest.mark.parametrize(
    ("name", "predictions", "labels", "expected"),
    [
        ("accuracy", [0, 1, 2, 1], [0, 1, 1, 1], 3 / 4),
        # 2 true positives, 1 false positive, 2 false negatives
        ("f1", [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0], 4 / (4 + 1 + 2)),
        ("macro_f1", [0, 0, 1, 1], [0, 1, 1, 2], (2 / (2 + 1) + 2 / (2 + 2) + 0) / 3),
        # -1 is no prediction
        ("macro_f1", [0, -1, 1, 1], [0, 0, 1, 3], (2 / (1 + 2) + 2 / (2 + 1) + 0) / 3),
        # TP 2, TN 1, FP 1, FN 0
        ("matthews_correlation", [1, 1, 1, 0], [1, 1, 0, 0], (2 * 1 - 1 * 0) / 12**0.5),
        # centered: (-1, 0, 1) and (-3, -2, 5)
        ("pearson", [1.0, 2.0, 3.0], [1.0, 2.0, 9.0], 8 / (2 * 38) ** 0.5),
        ("spearman", [1.0, 2.0, 3.0], [1.0, 2.0, 9.0], 1.0),
        ("mse", [1.0, 4.0], [1.0, 2.0], (0 + 4) / 2),
    ],
)
def test_scores_by_hand(
    name: str, predictions: list[float], labels: list[float], expected: float
) -> None:
    score = METRICS[name](np.array(predictions), np.array(labels))
    assert score == pytest.approx(expected)
    assert type(score) is float


@pytest.mark.parametrize("seed", range(5))
def test_correlations_agree_with_the_libraries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, 2, (2, 50))
    expected = sklearn_metrics.matthews_corrcoef(labels, predictions)
    assert metrics.matthews_correlation(predictions, labels) == pytest.approx(expected)
    x, y = np.round(rng.normal(size=(2, 50)), 1).astype(np.float32)  # rounded: ties
    assert metrics.pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-6)
    assert metrics.spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0])


@pytest.mark.parametrize("name", ["pearson", "spearman", "matthews_correlation", "f1"])
def test_constant_predictions_score_0_without_a_warning(name: str) -> None:
    zeros = np.zeros(4, dtype=np.int64)
    assert METRICS[name](zeros, np.array([1, 0, 1, 1])) == 0.0
    assert METRICS[name](zeros, np.array([1, 1, 1, 1])) == 0.0
    assert METRICS[name](zeros, zeros) == 0.0


def test_correlation_with_nearly_constant_predictions_is_a_number() -> None:
    labels = np.array([0.0, 1.0, 2.0])
    assert metrics.pearson(np.array([1e-300, 2e-300, 3e-300]), labels) == 0.0
    assert -1 <= metrics.pearson(np.float32([1, 1, 1 + 1e-7]), labels) <= 1
    assert 0.999999 < metrics.pearson(labels / 3, labels / 3) <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_are_not_scored(bad: float) -> None:
    with pytest.raises(TrainingError, match="not finite"):
        metrics.require_finite(np.array([[0.0, bad]]))
