"""Calibration of probabilities: their expected error, and the temperature that lowers it.

Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

_BINS = 15
_COLDEST, _HOTTEST = np.log(0.01), np.log(100.0)


def calibration_error(probabilities: NDArray[Any], true: NDArray[Any]) -> float:
    """Return the expected calibration error of N predictions, in 15 bins of equal width.

    It is the mean distance between the probability and the share of predictions that are true,
    weighted by the predictions in each bin; 0 for no predictions.

    Args:
        probabilities: of each prediction, (N,).
        true: whether it is true, (N,).
    """
    bins = np.clip(np.ceil(probabilities * _BINS).astype(int) - 1, 0, _BINS - 1)
    gaps = np.bincount(bins, weights=true - probabilities.astype(float), minlength=_BINS)
    return float(np.abs(gaps).sum() / max(len(probabilities), 1))


def softmax_temperature(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the best temperature for classes; see `_fit`.

    Args:
        logits: (N, classes).
        labels: class numbers, (N,).
    """
    logits, rows = np.asarray(logits, np.float64), np.arange(len(labels))
    return _fit(lambda t: float(-log_softmax(logits / t, axis=-1)[rows, labels].mean()))


def sigmoid_temperature(logits: NDArray[Any], present: NDArray[Any]) -> float:
    """Return the best temperature for independent labels; see `_fit`.

    Args:
        logits: (N, labels).
        present: whether the row has the label, (N, labels).
    """
    logits = np.asarray(logits, np.float64)
    return _fit(lambda t: float((np.logaddexp(0, logits / t) - present * logits / t).mean()))


def softmax_calibration(
    logits: NDArray[Any], labels: NDArray[Any], temperature: float
) -> Mapping[str, float]:
    """Describe the calibration of the most likely classes, with and without the temperature."""
    right = logits.argmax(axis=-1) == labels
    return _described(lambda t: softmax(logits / t, axis=-1).max(axis=-1), right, temperature)


def sigmoid_calibration(
    logits: NDArray[Any], present: NDArray[Any], temperature: float
) -> Mapping[str, float]:
    """Describe the calibration of all pairs of row and label."""
    return _described(lambda t: expit(logits / t).reshape(-1), present.reshape(-1), temperature)


def _described(
    probabilities: Callable[[float], NDArray[Any]], true: NDArray[Any], temperature: float
) -> Mapping[str, float]:
    """Return the temperature, and the errors of the probabilities at it and at 1."""
    return {
        "temperature": temperature,
        "error": calibration_error(probabilities(temperature), true),
        "error_without_temperature": calibration_error(probabilities(1.0), true),
    }


def _fit(loss: Callable[[float], float]) -> float:
    """Return the temperature with the lowest loss, at most 100.

    1 if ever lower temperatures have a lower loss: then every row is right, which says nothing
    about how sure the model may be.
    """
    found = minimize_scalar(
        lambda log_t: loss(np.exp(log_t)), bounds=(_COLDEST, _HOTTEST), method="bounded"
    )
    return float(np.exp(found.x)) if found.x > _COLDEST + 0.01 else 1.0
