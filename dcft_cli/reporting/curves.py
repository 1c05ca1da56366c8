"""Learning curves of a group: mean and standard deviation over its seeds."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcft_cli.reporting.collect import Run

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A score by step; steps, mean and sd (0 for one run) have the same length."""

    steps: Numbers
    mean: Numbers
    sd: Numbers


def curve(runs: Iterable[Run]) -> Curve | None:
    """Return the curve over the steps that all runs with a log scored; None without any."""
    scores = [dict(run.scores) for run in runs if run.scores]
    if not scores:
        return None
    steps = sorted(set.intersection(*map(set, scores)))
    if not steps:
        return None
    values = np.array([[run[step] for step in steps] for run in scores])
    sd = values.std(axis=0, ddof=1) if len(scores) > 1 else np.zeros(len(steps))
    return Curve(np.array(steps, dtype=np.float64), values.mean(axis=0), sd)
