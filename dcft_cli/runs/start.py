"""Before the first step: the head fitted, the adapters started from a gradient."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TrainingArguments

from dcft_cli.adapter.initialization import start_from_gradient
from dcft_cli.adapter.merge import merged
from dcft_cli.models.loading import BaseModel
from dcft_cli.runs.prepare import Preparation
from dcft_cli.targets.resolve import general_name
from dcft_cli.tasks.prior import Prior
from dcft_cli.training.head import FittedHead, LinearProblem, fit_head

# Of the size that a fitted head starts with; docs/findings.md has what other shares reach.
HEAD_SHARE = 0.1
_ROWS_OF_HEAD = 2048
_ROWS_OF_GRADIENT = 256


@dataclass(frozen=True)
class ConstantPrediction:
    """The best prediction that reads no input: the least that a run must beat.

    Attributes:
        prior: what it says; None where a task has none.
        scores: by metric, with the prefixes of their sets.
    """

    prior: Prior | None
    scores: dict[str, float]

    @property
    def loss(self) -> float | None:
        """Its mean training loss, if that is known."""
        return None if self.prior is None else self.prior.loss


def constant_prediction(preparation: Preparation) -> ConstantPrediction:
    """Score the constant prediction of a run's training rows on its validation data."""
    loaded = preparation.loaded
    assert loaded.train is not None
    prior = loaded.task.prior(loaded.train.dataset)
    scores: dict[str, float] = {}
    for held in preparation.evaluation_sets:
        found = held.constant_scores(None if prior is None else prior.logits)
        scores |= {f"{held.prefix}{name}": value for name, value in found.items()}
    return ConstantPrediction(prior, scores)


def fit_task_head(
    base: BaseModel, preparation: Preparation, args: TrainingArguments, prior: Prior | None
) -> FittedHead | None:
    """Fit the last layer of the task head, if the recipe asks for it and the base has no head.

    Every process of a distributed run does the same on the same rows.

    Args:
        base: with adapters, on its device.
        prior: of the training rows.

    Returns:
        None where nothing is fitted, and the head starts at random.
    """
    if preparation.recipe.training.fit_head == "off" or not base.lacking:
        return None
    task = preparation.loaded.task
    logits = np.zeros(2) if prior is None else prior.logits
    problem = LinearProblem(
        examples=task.linear_examples,
        loss=task.linear_loss,
        logits=torch.from_numpy(logits).float().to(args.device),
        spread=None if prior is None else prior.spread,
    )
    with _without_training(base.model, args), _precision(args), merged(base.model):
        size = args.per_device_eval_batch_size
        batches = training_batches(base.model, preparation, args, _ROWS_OF_HEAD, size)
        return fit_head(base.model, base.lacking, batches, problem)


def start_adapters(base: BaseModel, preparation: Preparation, args: TrainingArguments) -> str:
    """Start the adapters from the first gradient, if the recipe asks for it.

    Every process of a distributed run does the same on the same rows.

    Args:
        base: with adapters, on its device.

    Returns:
        A note on those that have no gradient; empty if all have one.
    """
    if preparation.recipe.adapter.init != "gradient":
        return ""
    checkpointing = preparation.recipe.training.gradient_checkpointing
    with _without_training(base.model, args, checkpointing=checkpointing):
        size = args.per_device_train_batch_size
        batches = training_batches(base.model, preparation, args, _ROWS_OF_GRADIENT, size)
        without = start_from_gradient(base.model, batches)
    if not without:
        return ""
    kinds = ", ".join(sorted({general_name(name) for name in without}))
    return (
        f"{len(without)} adapters have no gradient at the base model and start as with "
        f"adapter.init=zero ({kinds})."
    )


@contextmanager
def _without_training(
    model: nn.Module, args: TrainingArguments, *, checkpointing: bool = False
) -> Iterator[None]:
    """Within it, the model computes without dropout; modes and random state are put back.

    Args:
        checkpointing: activations are recomputed, which models do in training mode only: some
            dropout stays.
    """
    modes = {module: module.training for module in model.modules()}
    device = args.device
    try:
        model.train(checkpointing)
        for module in modes:
            if isinstance(module, nn.Dropout):
                module.eval()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def training_batches(
    model: nn.Module, preparation: Preparation, args: TrainingArguments, most: int, size: int
) -> Iterator[dict[str, Any]]:
    """Batches of training rows drawn by the recipe's seed, as the model takes them.

    Args:
        most: rows in all, at most.
        size: rows of a batch.
    """
    rows = preparation.train_set
    assert rows is not None
    generator = np.random.default_rng(preparation.recipe.training.seed)
    chosen = np.sort(generator.permutation(len(rows))[:most])
    lengths = np.asarray(rows["length"][:])[chosen]
    order = chosen[np.argsort(-lengths, kind="stable")]
    known = signature(model.forward).parameters
    columns = [name for name in rows.column_names if name in known]
    collate = preparation.collator(args.device)
    starts = range(0, len(order), size)
    for first in generator.permutation(starts):
        batch = collate(list(rows.select(order[first : first + size]).select_columns(columns)))
        yield {name: value.to(args.device) for name, value in batch.items()}


def _precision(args: TrainingArguments) -> AbstractContextManager[object]:
    """Mixed precision, as the Trainer computes in."""
    for asked, dtype in ((args.bf16, torch.bfloat16), (args.fp16, torch.float16)):
        if asked:
            return torch.autocast(args.device.type, dtype=dtype)
    return nullcontext()
