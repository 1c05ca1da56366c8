"""The best prediction that ignores the input: the least that a trained model must beat."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prior:
    """The constant prediction with the lowest loss on the training rows.

    Attributes:
        logits: predicted for every row, (outputs,).
        spread: standard deviation of a regression's targets; None for classes.
        loss: its mean training loss.
    """

    logits: NDArray[Any]
    spread: float | None
    loss: float


def prior_of_classes(counts: NDArray[Any]) -> Prior:
    """Return the prior for classes from their counts, (classes,)."""
    # A class that never occurs gets a small share, not a logit of minus infinity.
    shares = (counts + 0.5) / (counts + 0.5).sum()
    entropy = -(counts / counts.sum() * np.log(shares)).sum()
    return Prior(np.log(shares), None, float(entropy))


def prior_of_labels(counts: NDArray[Any], rows: int, weights: NDArray[Any] | float = 1.0) -> Prior:
    """Return the prior for independent labels.

    Args:
        counts: number of rows with each label, (labels,).
        rows: number of all rows.
        weights: in the loss, of the rows with each label, (labels,).
    """
    present, absent = counts * weights, rows - counts
    shares = (present + 0.5) / (present + absent + 1)
    entropy = -((present * np.log(shares) + absent * np.log1p(-shares)) / rows).mean()
    return Prior(np.log(shares) - np.log1p(-shares), None, float(entropy))


def prior_of_numbers(targets: NDArray[Any]) -> Prior:
    """Return the prior for numbers, which is the mean of the targets (rows,)."""
    spread = float(targets.std())
    return Prior(targets.mean(keepdims=True), spread, spread**2)
