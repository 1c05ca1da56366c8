"""Rows without labels, encoded, with the function that turns a model's outputs into predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, Sequence[Any]]

Prediction = dict[str, Any]
"""What is predicted for one row, as plain values; docs/prediction.md has the keys by family."""


@dataclass(frozen=True)
class PredictionSet:
    """Rows to predict.

    Attributes:
        features: the model's inputs by column, and `length` (in tokens); longest first.
        rows: index of the row that each input belongs to, (inputs,). Long rows of some families
            have several inputs.
        predict: outputs in the order of `features`, as `EvaluationSet` describes them, to one
            prediction per row, in the order of the rows. Raises TrainingError for outputs that
            are not finite.
    """

    features: Columns
    rows: NDArray[np.int64]
    predict: Callable[[Any], list[Prediction]]


def sort_by_length(columns: Columns) -> tuple[dict[str, list[Any]], NDArray[np.int64]]:
    """Sort by the column `length`, descending and stable; return the columns and the order."""
    order = np.argsort(-np.asarray(columns["length"]), kind="stable")
    return {name: [values[index] for index in order] for name, values in columns.items()}, order


def shortened(value: float) -> float:
    """Return a number with seven significant digits, all that a float32 has."""
    return float(f"{value:.7g}")
