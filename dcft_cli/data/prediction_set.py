"""Rows without labels, encoded, with the function that turns a model's outputs into predictions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datasets import Dataset

Prediction = dict[str, Any]
"""What is predicted for one row, as plain values; docs/prediction.md has the keys by family."""


@dataclass(frozen=True)
class PredictionSet:
    """Rows to predict.

    Attributes:
        features: the model's inputs, and `length` (in tokens); longest first.
        rows: index of the row that each input belongs to, (inputs,). Long rows of some families
            have several inputs.
        predict: outputs in the order of `features`, as `EvaluationSet` describes them, to one
            prediction per row, in the order of the rows. Raises TrainingError for outputs that
            are not finite.
    """

    features: "Dataset"
    rows: NDArray[np.int64]
    predict: Callable[[Any], list[Prediction]]


def shortened(value: float) -> float:
    """Return a number with seven significant digits, all that a float32 has."""
    return float(f"{value:.7g}")
