import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from dcft_cli.errors import TrainingError
from dcft_cli.tasks import metrics
from dcft_cli.tasks.metrics import METRICS


def test_accuracy_by_hand() -> None:
    assert metrics.accuracy(np.array([0, 1, 2, 1]), np.array([0, 1, 1, 1])) == 0.75


def test_f1_is_that_of_class_1_by_hand() -> None:
    # 2 true positives, 1 false positive, 2 false negatives: 4 / (4 + 1 + 2)
    predictions, labels = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 1, 1, 0])
    assert metrics.f1(predictions, labels) == pytest.approx(4 / 7)


def test_macro_f1_by_hand() -> None:
    # F1 of class 0: 2 / (2 + 1), of class 1: 2 / (2 + 2), of class 2: 0
    predictions, labels = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2])
    assert metrics.macro_f1(predictions, labels) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    # -1 is no prediction: F1 of class 0 is 2 / (1 + 2), of class 1: 2 / (2 + 1)
    predictions, labels = np.array([0, -1, 1, 1]), np.array([0, 0, 1, 3])
    assert metrics.macro_f1(predictions, labels) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_matthews_correlation_by_hand() -> None:
    # TP 2, TN 1, FP 1, FN 0: (2*1 - 1*0) / sqrt(3 * 2 * 2 * 1)
    predictions, labels = np.array([1, 1, 1, 0]), np.array([1, 1, 0, 0])
    assert metrics.matthews_correlation(predictions, labels) == pytest.approx(2 / 12**0.5)


def test_pearson_and_spearman_by_hand() -> None:
    x, y = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 9.0])
    # centered: (-1, 0, 1) and (-3, -2, 5), so 8 / sqrt(2 * 38)
    assert metrics.pearson(x, y) == pytest.approx(8 / 76**0.5)
    assert metrics.spearman(x, y) == pytest.approx(1.0)


def test_mse_by_hand() -> None:
    assert metrics.mse(np.array([1.0, 4.0]), np.array([1.0, 2.0])) == 2.0


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


def test_perfect_correlation_is_not_above_one() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    assert 0.999999 < metrics.pearson(values, values) <= 1.0


def test_every_score_is_a_python_float() -> None:
    x, y = np.array([0, 1, 1], dtype=np.float32), np.array([0, 1, 0], dtype=np.int64)
    for metric in METRICS.values():
        assert type(metric(x.astype(np.int64), y)) is float


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_are_not_scored(bad: float) -> None:
    with pytest.raises(TrainingError, match="not finite"):
        metrics.require_finite(np.array([[0.0, bad]]))
