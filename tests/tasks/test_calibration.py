"""The expected calibration error, and the temperature that lowers it."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit, softmax

from dcft_cli.tasks.calibration import (
    calibration_error,
    sigmoid_calibration,
    sigmoid_temperature,
    softmax_calibration,
    softmax_temperature,
)


def test_the_error_by_hand() -> None:
    """Three of 15 bins are used: (0, 1/15], (9/15, 10/15] and (14/15, 1]."""
    probabilities = np.array([0.0, 0.65, 0.65, 0.62, 1.0])
    true = np.array([False, True, False, True, False])
    gaps = [0.0, abs(2 / 3 - 0.64) * 3, 1.0]
    assert calibration_error(probabilities, true) == pytest.approx(sum(gaps) / 5)


def test_the_error_of_nothing_is_0() -> None:
    assert calibration_error(np.zeros(0), np.zeros(0, bool)) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_error_is_the_textbook_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, true = rng.random(300), rng.random(300) < 0.6
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in pairwise(edges):
        inside = (probabilities > low) & (probabilities <= high)
        if inside.any():
            gap = abs(true[inside].mean() - probabilities[inside].mean())
            expected += inside.mean() * gap
    assert calibration_error(probabilities, true) == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_true_temperature_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    labels = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=-1)])
    sure = (logits * temperature).astype(np.float32)
    found = softmax_temperature(sure, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    calibration = softmax_calibration(sure, labels, found)
    assert calibration["temperature"] == found
    assert calibration["error"] < 0.02
    if temperature != 1.0:
        assert calibration["error_without_temperature"] > 0.08
    present = rng.random(logits.shape) < expit(logits)
    found = sigmoid_temperature(sure, present)
    assert found == pytest.approx(temperature, rel=0.05)
    calibration = sigmoid_calibration(sure, present, found)
    assert calibration["error"] < 0.02
    if temperature != 1.0:
        assert calibration["error_without_temperature"] > 0.05


def test_a_perfect_model_keeps_its_probabilities() -> None:
    """The lower the temperature, the higher the likelihood: nothing can be fitted."""
    logits, labels = np.array([[2.0, -1.0], [0.1, 0.3]]), np.array([0, 1])
    assert softmax_temperature(logits, labels) == 1.0
    assert sigmoid_temperature(logits, np.array([[True, False], [True, True]])) == 1.0


def test_a_model_that_knows_nothing_becomes_unsure() -> None:
    logits, labels = np.array([[5.0, -5.0]] * 4), np.array([0, 1, 0, 1])
    assert softmax_temperature(logits, labels) > 50
