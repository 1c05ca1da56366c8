"""Means over seeds, and differences between runs of the same seed."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Confidence level of intervals."""


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1) of n values; None for a single value."""

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Difference:
    """Mean difference to a reference over the n seeds that both have.

    Attributes:
        half: half the width of the 95 % interval around the mean; None for n = 1.
    """

    n: int
    mean: float
    half: float | None


def summarize(values: Iterable[float]) -> Summary:
    """Return mean and standard deviation of one or more values."""
    found = np.array(list(values), dtype=np.float64)
    sd = float(found.std(ddof=1)) if found.size > 1 else None
    return Summary(found.size, float(found.mean()), sd)


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float]
) -> Difference | None:
    """Return the mean of `values - reference` by seed, with Student's t interval.

    Differences of the same seed share initial values, data order and dropout as far as the
    methods allow, so their spread is that of the comparison.

    Args:
        values, reference: a score by seed.

    Returns:
        None if no seed is in both.
    """
    seeds = sorted(values.keys() & reference.keys())
    if not seeds:
        return None
    summary = summarize(values[seed] - reference[seed] for seed in seeds)
    if summary.sd is None:
        return Difference(summary.n, summary.mean, None)
    from scipy.stats import t

    quantile = float(t.ppf((1 + LEVEL) / 2, summary.n - 1))
    return Difference(summary.n, summary.mean, quantile * summary.sd / math.sqrt(summary.n))
