"""The base model of a run with its method: loaded, frozen, on the device."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dcft_cli.adapter_file.load import check_fingerprint
from dcft_cli.adapter_file.read import ADAPTER_FILE, read_contents
from dcft_cli.adapter_file.write import describe
from dcft_cli.errors import RunError
from dcft_cli.methods.build import build
from dcft_cli.methods.method import Method
from dcft_cli.models.head import reuse_head
from dcft_cli.models.loading import BaseModel, base_fingerprint, check_finite, load_model
from dcft_cli.runs.adapter_plan import targets_of
from dcft_cli.runs.plan import TrainingPlan
from dcft_cli.targets.head import find_parts
from dcft_cli.targets.resolve import general_name
from dcft_cli.training.checkpointing import checkpoint_activations
from dcft_cli.training.distributed import move_whole, shard_frozen
from dcft_cli.training.reporting import Reporter


def attach(plan: TrainingPlan, reporter: Reporter) -> tuple[BaseModel, Method, str]:
    """Load the base model on its device, and attach the method where it affects the loss.

    Returns:
        The base, whose `missing_keys` are the parameters of the head to train; the method; and
        the fingerprint of the base's weights.

    Raises:
        ModelError: the weights cannot be loaded, or are not finite.
    """
    recipe, preparation, device = plan.recipe, plan.preparation, plan.machine.device
    loaded = load_model(recipe.model, preparation.config, preparation.auto_class)
    check_finite(recipe.model, loaded.model)
    base, note = reuse_head(
        loaded,
        preparation.base_config,
        preparation.loaded.task.labels,
        recipe.head.reuse,
        name=recipe.model.name,
        auto_class=preparation.auto_class,
    )
    if note:
        reporter.noted(note)
    model = base.model
    fingerprint = base_fingerprint(model, base.head, recipe.model, preparation.auto_class)
    if recipe.training.shard_base:
        shard_frozen(model, base.head, device, plan.machine.processes)
    parts = find_parts(model, targets_of(recipe.adapter), head=base.head, dense=recipe.head.dense)
    base = replace(base, missing_keys=base.missing_keys - parts.fixed)
    method = build(recipe.adapter, seed=recipe.training.seed, total_steps=plan.total_steps)
    method.attach(model, parts)
    move_whole(model, device)
    loss = preparation.loaded.task.training_loss
    left_out = method.remove_unreached(longest_batch(plan, model), loss)
    if left_out:
        move_whole(model, device)  # what was attached again
        names = ", ".join(sorted({general_name(name) for name in left_out}))
        reporter.noted(
            f"{len(left_out)} layers do not affect this task's loss and get no adapter ({names})."
        )
    if recipe.training.gradient_checkpointing:
        checkpoint_activations(model)
    trained = sum(parameter.numel() for parameter in method.head().values())
    if trained > plan.adapter.head_parameters:
        layers = ", ".join(sorted({name.rpartition(".")[0] for name in parts.trained}))
        reporter.noted(f"{trained:,} parameters that the checkpoint lacks are trained: {layers}.")
    return base, method, fingerprint


def longest_batch(plan: TrainingPlan, model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the longest rows: in a text of one token, queries and keys do not affect the loss."""
    assert plan.preparation.train_set is not None
    longest = np.argsort(plan.preparation.train_set["length"][:])[-2:]
    return plan.preparation.training_batch(model, longest, plan.machine.device)


def check_checkpoint(path: Path, method: Method, fingerprint: str) -> None:
    """Check that a checkpoint to resume fits the attached method; the trainer loads it.

    Raises:
        RunError, AdapterFileError: it has another adapter or base than this recipe.
    """
    contents = read_contents(path / ADAPTER_FILE)
    check_fingerprint(contents, fingerprint)
    same = contents.method == method.settings.method and method.fits(contents)
    if not (same and dict(contents.model) == describe(method.model)):
        raise RunError(
            f"{path} has another adapter, or other labels, than the recipe describes.",
            "Resume with the recipe that the run was started with, or use another --output.",
        )
