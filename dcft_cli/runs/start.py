"""Before the first step: baselines, the fitted head, adapters started from a gradient."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dcft_cli.adapter.initialization import start_from_gradient
from dcft_cli.adapter.merge import merged
from dcft_cli.models.loading import BaseModel
from dcft_cli.runs.prepare import Preparation
from dcft_cli.targets.gradients import Loss
from dcft_cli.targets.resolve import general_name
from dcft_cli.tasks.prior import Prior
from dcft_cli.training.callbacks import BeforeFirstStep
from dcft_cli.training.diagnosis import FITTED_HEAD
from dcft_cli.training.global_batch import loss_terms
from dcft_cli.training.head import FittedHead, LinearProblem, fit_head
from dcft_cli.training.machine import Machine
from dcft_cli.training.trainer import AdapterTrainer

# Initial size of a fitted head, as a share of the fit; docs/findings.md compares shares.
HEAD_SHARE = 0.1
_HEAD_ROWS = 2048
_GRADIENT_ROWS = 256
_GROUP = 64  # rows of similar length


def start(
    base: BaseModel,
    trainer: AdapterTrainer,
    preparation: Preparation,
    machine: Machine,
    prior: Prior | None,
) -> None:
    """Fit the head and start the adapters as the recipe says, and add the fitted head's baseline.

    Every process of a distributed run does the same on the same rows.

    Args:
        base: with adapters, on its device.
        prior: of the training rows.
    """
    # Where only the head is trained, there is nothing that a fitted one would keep from learning.
    share = HEAD_SHARE if trainer.method.trained_parameters() else 1.0
    if fitted := fit_task_head(base, preparation, machine, prior):

        def score_fitted_head() -> None:
            fitted.scale(1.0)
            trainer.add_baseline(FITTED_HEAD, trainer.score(), write=True)
            fitted.scale(share)

        fitted.scale(share)
        if preparation.evaluation_sets:
            trainer.add_callback(BeforeFirstStep(score_fitted_head))
    elif preparation.recipe.training.fit_head == "auto" and _has_new_layer(base):
        trainer.reporting.reporter.noted(
            "The head starts at random: no linear layer of it computes the model's outputs."
        )
    if names := start_adapters(base, preparation, machine, trainer.loss):
        trainer.reporting.reporter.noted(
            f"{len(names)} adapters have no gradient at the base model and start as with "
            f"adapter.init=zero ({', '.join(sorted(set(map(general_name, names))))})."
        )


def constant_prediction(preparation: Preparation) -> tuple[Prior | None, dict[str, float]]:
    """Score the best prediction that reads no input: the least that a run must beat.

    Returns:
        The prior of the training rows with the lowest loss (None if the task has none), and the
        scores of the one without class weights on the validation data, by metric.
    """
    loaded = preparation.loaded
    assert loaded.train is not None
    prior = loaded.task.prior(loaded.train.dataset)
    unweighted = loaded.task.prior(loaded.train.dataset, weighted=False)
    scores: dict[str, float] = {}
    for eval_set in preparation.evaluation_sets:
        logits = None if unweighted is None else unweighted.logits
        eval_set.add_to(scores, eval_set.constant_scores(logits))
    return prior, scores


def fit_task_head(
    base: BaseModel, preparation: Preparation, machine: Machine, prior: Prior | None
) -> FittedHead | None:
    """Fit the task head's last layer, if the recipe asks for it and the base has no head.

    Returns:
        None if nothing is fitted, and the head starts at random.
    """
    training = preparation.recipe.training
    if training.fit_head == "off" or not _has_new_layer(base):
        return None
    task = preparation.loaded.task
    logits = np.zeros(2) if prior is None else prior.logits
    problem = LinearProblem(
        examples=task.linear_examples,
        loss=task.linear_loss,
        logits=torch.from_numpy(logits).float().to(machine.device),
        spread=None if prior is None else prior.spread,
    )
    size = training.evaluation_batch_size
    # Mixed precision would round W + dW.
    weights = merged(base.model) if machine.precision == "float32" else nullcontext()
    with _without_dropout(base.model, machine), machine.autocast(), weights:
        batches = training_batches(base.model, preparation, machine, _HEAD_ROWS, size)
        return fit_head(base.model, base.missing_keys, batches, problem)


def _has_new_layer(base: BaseModel) -> bool:
    """Return whether the last layer of the head is new, and not one that the base brings along."""
    return bool(base.missing_keys) and not base.reused_keys


def start_adapters(
    base: BaseModel, preparation: Preparation, machine: Machine, loss: Loss | None = None
) -> list[str]:
    """Start the adapters from the first gradient, if the recipe asks for it.

    Args:
        loss: of outputs and inputs; None: the model's own.

    Returns:
        Names of the adapters without a gradient.
    """
    recipe = preparation.recipe
    if recipe.adapter.method != "dcft" or recipe.adapter.init != "gradient":
        return []
    with _without_dropout(base.model, machine, training=recipe.training.gradient_checkpointing):
        size = recipe.training.batch_size
        batches = training_batches(base.model, preparation, machine, _GRADIENT_ROWS, size)

        def summed(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
            mean = outputs["loss"] if loss is None else loss(outputs, batch)
            return mean * loss_terms(batch)  # rows count equally, however large their batch

        return start_from_gradient(base.model, batches, summed)


def training_batches(
    model: nn.Module, preparation: Preparation, machine: Machine, max_rows: int, size: int
) -> Iterator[dict[str, Tensor]]:
    """Yield batches of `size` training rows, at most `max_rows` in all, by the recipe's seed.

    Rows of similar length follow each other. Their order does not depend on `size`, and so not on
    the number of devices that share a batch.
    """
    assert preparation.train_set is not None
    lengths = np.asarray(preparation.train_set["length"][:])
    generator = np.random.default_rng(preparation.recipe.training.seed)
    chosen = np.sort(generator.permutation(len(lengths))[:max_rows])
    by_length = chosen[np.argsort(-lengths[chosen], kind="stable")]
    groups = generator.permutation(range(0, len(by_length), _GROUP))
    order = np.concatenate([by_length[first : first + _GROUP] for first in groups])
    for first in range(0, len(order), size):
        yield preparation.training_batch(model, order[first : first + size], machine.device)


@contextmanager
def _without_dropout(
    model: nn.Module, machine: Machine, *, training: bool = False
) -> Iterator[None]:
    """Context without dropout, after which modes and random state are as before.

    Args:
        training: use training mode, since models checkpoint activations only there; dropout that
            is no module remains.
    """
    modes = {module: module.training for module in model.modules()}
    device = machine.device
    try:
        model.train(training)
        for module in modes:
            if isinstance(module, nn.Dropout):
                module.eval()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
