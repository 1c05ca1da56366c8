"""One mean loss over the batch of an optimizer step, however many batches and processes share it.

Each batch has a mean loss of its own, and processes and accumulation average these means. That is
the mean of the whole batch only if all parts are equally large, which the last batch of an epoch
and the labeled tokens of a sentence are not. So every loss is weighted by its number of terms.
"""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

_WEIGHT = "loss_weight"
_IGNORED = -100  # label of what no loss is computed for, as torch and transformers have it

Batch = MutableMapping[str, Any]
"""Inputs of a model by name; the first dimension of every tensor counts the rows."""


def remove_repeated_rows(batch: Batch, rows: int, process: int, processes: int) -> bool:
    """Remove the rows that fill up the last batch of an epoch, which others have as well.

    Processes take equal shares, in order, and rows of the epoch's start are repeated until the
    last shares are full too.

    Args:
        batch: the last one of this process. A share that is only repeated rows keeps one of them,
            since every process has to take part in the step.
        rows: of the epoch.

    Returns:
        Whether the rows that are left count.
    """
    share = row_count(batch)
    last = rows % (share * processes) or share * processes
    own = min(max(last - process * share, 0), share)
    for name, value in batch.items():
        batch[name] = value[: max(own, 1)]
    return own > 0


def weight_losses(
    batches: list[Batch], add_up: Callable[[Tensor], Tensor], processes: int, *, last_counts: bool
) -> None:
    """Give each batch the weight with which the average of all losses is the mean of all terms.

    Args:
        batches: those that one process accumulates for a step; the weight is added to each.
        add_up: adds a tensor of all processes.
        last_counts: whether the last batch counts (`remove_repeated_rows`).
    """
    counts = torch.stack([loss_terms(batch) for batch in batches])
    if not last_counts:
        counts[-1] = 0
    total = add_up(counts.sum())
    weights = counts.float() * (len(batches) * processes) / total
    for batch, weight in zip(batches, weights, strict=True):
        batch[_WEIGHT] = weight


def pop_weight(inputs: Batch) -> Tensor | None:
    """Remove the weight of a batch's loss and return it; None where there is none."""
    weight: Tensor | None = inputs.pop(_WEIGHT, None)
    return weight


def weighted(loss: Tensor, weight: Tensor) -> Tensor:
    """Weight a loss; without any term it is 0, not the NaN of an empty mean."""
    return torch.where(weight > 0, loss * weight, torch.zeros_like(loss))


def loss_terms(batch: Mapping[str, Any]) -> Tensor:
    """Return over how many terms the loss of a batch is a mean: labeled tokens, or else rows."""
    labels = batch.get("labels")
    if isinstance(labels, Tensor) and not labels.is_floating_point():
        return labels.ne(_IGNORED).sum()
    first = next(iter(batch.values()))
    return torch.tensor(row_count(batch), device=first.device)


def row_count(batch: Mapping[str, Any]) -> int:
    """Return the number of rows."""
    return len(next(iter(batch.values())))
