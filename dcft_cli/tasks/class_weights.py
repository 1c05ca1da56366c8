"""Weights of classes in the loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcft_cli.data.labels import label_key
from dcft_cli.errors import RecipeError, did_you_mean, listed

Weights = NDArray[np.float64]


def named_weights(weights: Mapping[str, float], labels: Sequence[str]) -> Weights:
    """Return the weights of all classes; 1 for those that the recipe does not name.

    Raises:
        RecipeError: there is no class of that name.
    """
    by_key = {label_key(name): weight for name, weight in weights.items()}
    if unknown := [n for n in weights if label_key(n) not in map(label_key, labels)]:
        raise RecipeError(
            f"training.class_weights: there is no class named {', '.join(unknown)}.",
            f"{did_you_mean(unknown[0], labels)}Classes: {listed(labels)}.",
        )
    return np.array([by_key.get(label_key(name), 1.0) for name in labels])


def balanced_classes(counts: NDArray[Any]) -> Weights:
    """Return weights with which all classes contribute equally, from their counts (classes,)."""
    weights: Weights = 1.0 / np.maximum(counts, 1)
    return weights


def mean_one(weights: Weights, counts: NDArray[Any]) -> Weights:
    """Scale weights so that their mean over the training rows is 1.

    The loss keeps its size. The scale is that of the whole training set, so a row counts the same
    in every batch.
    """
    scaled: Weights = weights * counts.sum() / (weights * counts).sum()
    return scaled


def balanced_labels(counts: NDArray[Any], rows: int) -> Weights:
    """Return weights of independent labels with which rows with and without one count equally.

    Args:
        counts: rows with each label, (labels,).
    """
    # A label of all rows or of none keeps weight 1: nothing can balance it.
    both = (counts > 0) & (counts < rows)
    weights: Weights = np.where(both, (rows - counts) / np.maximum(counts, 1), 1.0)
    return weights
