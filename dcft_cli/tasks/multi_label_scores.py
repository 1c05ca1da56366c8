"""Scores of multi-label classification: of sets of labels, and of the logits behind them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from dcft_cli.tasks.metrics import f1_of_counts, macro_f1_of_counts

METRICS_OF_MULTI_LABEL = (
    "micro_f1",
    "macro_f1",
    "mean_average_precision",
    "subset_accuracy",
    "best_micro_f1",
)


def score_label_sets(
    logits: NDArray[Any], given: NDArray[np.bool_], present: NDArray[np.bool_]
) -> dict[str, float]:
    """Scores predicted sets of labels against the true ones.

    Args:
        logits: of the probability of each label, (rows, labels).
        given: whether a label is predicted, (rows, labels).
        present: whether it is true, (rows, labels).

    Returns:
        `micro_f1`: F1 over all pairs of row and label. `macro_f1`: mean F1 of the labels that are
        predicted or present. `mean_average_precision`: mean over the labels that are present.
        `subset_accuracy`: share of rows whose set is right to the last label. `best_micro_f1`:
        what the best threshold for this very set would have reached, with that threshold.
    """
    hits, predicted, true = ((given & present).sum(0), given.sum(0), present.sum(0))
    precisions = [
        average_precision(logits[:, label], present[:, label]) for label in np.flatnonzero(true)
    ]
    best, threshold = best_threshold(logits, present)
    return {
        "micro_f1": float(f1_of_counts(hits.sum(), predicted.sum(), true.sum())),
        "macro_f1": macro_f1_of_counts(hits, predicted, true),
        "mean_average_precision": float(np.mean(precisions)) if precisions else 0.0,
        "subset_accuracy": float((given == present).all(1).mean()),
        "best_micro_f1": best,
        "best_micro_f1_threshold": threshold,
    }


def average_precision(logits: NDArray[Any], present: NDArray[np.bool_]) -> float:
    """Mean precision at the ranks of the true rows; rows that tie share the lowest of their ranks.

    Args:
        logits: (rows,).
        present: which rows are true, (rows,); one at least.
    """
    _, hits, retrieved = _cuts(logits, present)
    return float(np.diff(hits, prepend=0) @ (hits / retrieved) / hits[-1])


def best_threshold(logits: NDArray[Any], present: NDArray[np.bool_]) -> tuple[float, float]:
    """The best micro F1 that any one threshold reaches, and the highest such probability.

    Args:
        logits: (rows, labels).
        present: as `logits`.
    """
    lowest, hits, retrieved = _cuts(logits.reshape(-1), present.reshape(-1))
    f1s = f1_of_counts(hits, retrieved, present.sum())
    best = int(f1s.argmax())
    return float(f1s[best]), float(expit(lowest[best]))


def _cuts(
    logits: NDArray[Any], present: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Every way to part the highest logits from the others; those that tie stay together.

    Returns:
        The lowest logit above each cut, how many above it are true, and how many there are.
    """
    order = np.argsort(-logits, kind="stable")
    ranks, true = logits[order], present[order]
    last_of_tie = np.append(ranks[1:] != ranks[:-1], True)
    return ranks[last_of_tie], np.cumsum(true)[last_of_tie], np.flatnonzero(last_of_tie) + 1
