"""`dcft train`: train as planned, keep the best checkpoint, and write the run folder."""

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import EarlyStoppingCallback, set_seed

from dcft_cli.acceleration import enable
from dcft_cli.adapter.inject import (
    adapter_layers,
    head_parameters,
    insert,
    remove_unreached,
)
from dcft_cli.adapter_file.load import load_tensors
from dcft_cli.adapter_file.read import ADAPTER_FILE, read_adapter
from dcft_cli.adapter_file.write import describe, save_adapter
from dcft_cli.errors import AdapterFileError, RunError
from dcft_cli.models.loading import BaseModel, base_fingerprint, load_model
from dcft_cli.recipe import dump_recipe
from dcft_cli.runs.adapter_plan import adapter_config
from dcft_cli.runs.folder import RunFolder, step_of, write_json
from dcft_cli.runs.plan import TrainingPlan
from dcft_cli.runs.prepare import Preparation, description, resting_in
from dcft_cli.runs.start import HEAD_SHARE, constant_prediction, fit_task_head, start_adapters
from dcft_cli.targets.resolve import find_targets, general_name
from dcft_cli.training.callbacks import BeforeFirstStep, ReportingCallback
from dcft_cli.training.checkpointing import checkpoint_activations
from dcft_cli.training.compiling import compile_errors_told, compile_model
from dcft_cli.training.diagnosis import CONSTANT, FITTED_HEAD, LearningCheck, relative_change
from dcft_cli.training.reporting import Reporter, Scores
from dcft_cli.training.trainer import AdapterTrainer


@dataclass(frozen=True)
class TrainingResult:
    """A finished run; `metrics` is what metrics.json holds."""

    folder: RunFolder
    metrics: dict[str, Any] = field(repr=False)


def train(plan: TrainingPlan, reporter: Reporter, *, resume: bool = False) -> TrainingResult:
    """Trains as planned.

    Args:
        reporter: told about every step.
        resume: go on from the folder's last checkpoint.

    Raises:
        ModelError: the base's weights cannot be loaded.
        TrainingError: the loss is lost.
        RunError, AdapterFileError: the checkpoint to resume does not fit.
    """
    recipe, folder, args = plan.recipe, plan.folder, plan.arguments
    preparation = plan.preparation
    checkpoint = folder.last_checkpoint() if resume else None
    set_seed(recipe.training.seed)
    base = _adapted_base(plan, reporter)
    model = base.model
    # torch.compile fuses operations itself.
    accelerated = recipe.training.acceleration == "auto" and not recipe.training.compile
    acceleration = enable(model) if accelerated else None
    mark = base_fingerprint(model, base.lacking, recipe.model, preparation.auto_class)
    if checkpoint is not None:
        _check_checkpoint(checkpoint, model, mark, plan)
    finished = checkpoint is not None and step_of(checkpoint) >= plan.total_steps
    if finished and folder.metrics.exists() and folder.adapter.exists():
        return TrainingResult(folder, json.loads(folder.metrics.read_text(encoding="utf-8")))
    began = time.perf_counter()

    def save(path: Path) -> None:
        save_adapter(
            model,
            path,
            base_name=recipe.model.name,
            base_revision=recipe.model.revision,
            base_fingerprint=mark,
            info=description(recipe),
        )

    metric, greater_is_better = preparation.loaded.main_metric, preparation.loaded.greater_is_better
    reporting = ReportingCallback(
        reporter,
        folder.log if args.should_save else None,
        metric=metric,
        greater_is_better=greater_is_better,
        tokens_per_step=plan.tokens / plan.steps_per_epoch,
    )
    constant = constant_prediction(preparation)
    check = LearningCheck(
        reporter,
        metric=metric,
        greater_is_better=greater_is_better,
        constant_loss=None if recipe.adapter.orthogonality else constant.loss,
    )
    patience = recipe.training.early_stopping_patience
    trainer = AdapterTrainer(
        model,
        args,
        tokenizer=preparation.tokenizer,
        collator=preparation.collator(args.device),
        train_set=preparation.train_set,
        evaluation_sets=preparation.evaluation_sets,
        orthogonality_weight=recipe.adapter.orthogonality,
        orthogonality_form=recipe.adapter.orthogonality_form,
        head=base.lacking,
        head_learning_rate=recipe.training.head_learning_rate,
        group_by_length=recipe.training.group_by_length,
        save=save,
        reporting=reporting,
        check=check,
        callbacks=[EarlyStoppingCallback(patience)] if patience else [],
    )
    if args.should_save:  # all is checked: from here on an earlier run is written over
        if checkpoint is None:
            folder.clear()
        else:
            folder.forget_after(step_of(checkpoint))
        folder.path.mkdir(parents=True, exist_ok=True)
        resting = resting_in(folder.path, recipe)
        folder.recipe.write_text(dump_recipe(resting), encoding="utf-8")
        preparation.tokenizer.save_pretrained(folder.path)
    baselines: dict[str, Scores] = {}

    def add_baseline(name: str, scores: Scores) -> None:
        baselines[name] = scores
        if metric in scores:
            check.baselines[name] = scores[metric]
            reporting.baseline(name, scores, write=checkpoint is None)

    if checkpoint is None:
        add_baseline(CONSTANT, constant.scores)
        if fitted := fit_task_head(base, preparation, args, constant.prior):

            def score_fitted_head() -> None:
                with fitted.in_full():
                    add_baseline(FITTED_HEAD, trainer.score())

            fitted.scale_down(HEAD_SHARE)
            if preparation.evaluation_sets:
                trainer.add_callback(BeforeFirstStep(score_fitted_head))
        elif recipe.training.fit_head == "auto" and base.lacking:
            reporter.noted(
                "The head starts at random: no linear layer of its own gives the model's outputs."
            )
        if note := start_adapters(base, preparation, args):
            reporter.noted(note)
    else:
        for name, scores in folder.baselines().items():
            add_baseline(name, scores)
    if recipe.training.compile:
        compile_model(model)
    if finished and checkpoint is not None:
        trainer.take_up(checkpoint)  # the Trainer would take one step more
    else:
        with compile_errors_told() if recipe.training.compile else nullcontext():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - began
    metrics = _metrics(plan, trainer, baselines, reporting.tokens_per_second, seconds)
    metrics["acceleration"] = acceleration
    metrics["notes"] = check.conclude(
        metrics["metrics"].get(metric), metrics["weight_change"], recipe.training.learning_rate
    )
    if args.should_save:
        save(folder.adapter)
        write_json(folder.metrics, metrics)
    return TrainingResult(folder, metrics)


def _adapted_base(plan: TrainingPlan, reporter: Reporter) -> BaseModel:
    """The base model on its device, with adapters wherever the loss depends on them."""
    recipe, preparation, device = plan.recipe, plan.preparation, plan.arguments.device
    base = load_model(recipe.model, preparation.config, preparation.auto_class)
    model = base.model
    config = adapter_config(recipe.adapter)
    insert(
        model, find_targets(model, config.targets, exclude=base.lacking), config, head=base.lacking
    )
    nn.Module.to(model, device)  # where its layers compute what they will in training
    if left_out := remove_unreached(model, _longest_rows(model, preparation, device)):
        reporter.noted(_about_unreached(left_out))
    if recipe.training.gradient_checkpointing:
        checkpoint_activations(model)
    if note := _about_head(base, plan):
        reporter.noted(note)
    return base


def _longest_rows(
    model: nn.Module, preparation: Preparation, device: torch.device
) -> dict[str, Any]:
    """A small batch of training rows, as the model takes them.

    The longest: where a text is one token, queries and keys have no say.
    """
    rows = preparation.train_set
    assert rows is not None
    known = signature(model.forward).parameters
    columns = [name for name in rows.column_names if name in known]
    longest = np.argsort(rows["length"][:])[-2:]
    collate = preparation.collator(device)
    return collate(list(rows.select(longest).select_columns(columns)))


def _about_unreached(names: list[str]) -> str:
    kinds = sorted({general_name(name) for name in names})
    return (
        f"No adapter in {len(names)} layers that have no say in this task's loss "
        f"({', '.join(kinds)})."
    )


def _check_checkpoint(path: Path, model: nn.Module, mark: str, plan: TrainingPlan) -> None:
    """The checkpoint holds this recipe's adapter, of this base."""
    contents = read_adapter(path / ADAPTER_FILE)
    if contents.base["fingerprint"] != mark:
        raise AdapterFileError(
            f"{path} was trained on other base weights than {plan.recipe.model.name}.",
            "Resume with the recipe that the run was started with.",
        )
    planned = replace(plan.adapter.config, stride=plan.adapter.config.effective_stride)
    head = {name: tuple(p.shape) for name, p in head_parameters(model).items()}
    same = (
        replace(contents.config, targets=planned.targets) == planned
        and contents.factors.keys() == adapter_layers(model).keys()
        and {name: tensor.shape for name, tensor in contents.head.items()} == head
        and dict(contents.model) == describe(model)
    )
    if not same:
        raise RunError(
            f"{path} holds another adapter, or other labels, than the recipe describes.",
            "Resume with the recipe that the run was started with, or use another --output.",
        )
    load_tensors(model, contents)


def _about_head(base: BaseModel, plan: TrainingPlan) -> str:
    """What the plan, made without weights, could not know of the parameters outside the adapter."""
    sizes = {name: p.numel() for name, p in base.model.named_parameters()}
    trained = sum(sizes[name] for name in base.lacking)
    if trained == plan.adapter.head_parameters:
        return ""
    if not trained:
        return f"{plan.recipe.model.name} has a task head already: it is kept as it is, frozen."
    parts = sorted({name.rpartition(".")[0] for name in base.lacking})
    return (
        f"Trained besides the adapter: {trained:,} parameters that {plan.recipe.model.name} lacks "
        f"({', '.join(parts)})."
    )


def _metrics(
    plan: TrainingPlan,
    trainer: AdapterTrainer,
    baselines: Mapping[str, Scores],
    speed: float | None,
    seconds: float,
) -> dict[str, Any]:
    """What metrics.json says: scores of best and last, what was trained, what it cost."""
    recipe, state = plan.recipe, trainer.state
    scores = {
        record["step"]: {
            name.removeprefix("eval_"): value
            for name, value in record.items()
            if name.startswith("eval_")
        }
        for record in state.log_history
        if any(name.startswith("eval_") for name in record)
    }
    best_step = state.best_global_step or state.global_step
    parameters = [p for layer in trainer.layers for p in (layer.A, layer.B, layer.C)]
    cuda = plan.arguments.device.type == "cuda"
    return {
        "task": recipe.task.name or recipe.task.kind,
        "main_metric": plan.preparation.loaded.main_metric,
        "metrics": scores.get(best_step, {}),
        "best_step": best_step,
        "last_metrics": scores.get(state.global_step, {}),
        "last_step": state.global_step,
        "baselines": {name.replace(" ", "_"): values for name, values in baselines.items()},
        "weight_change": relative_change(trainer.trained),
        "total_steps": plan.total_steps,
        "epochs": round(state.epoch or 0.0, 4),
        "train_loss": next((r["loss"] for r in reversed(state.log_history) if "loss" in r), None),
        "adapter_parameters": sum(p.numel() for p in parameters),
        "head_parameters": sum(p.numel() for p in head_parameters(trainer.trained).values()),
        "train_rows": plan.train_rows,
        "validation_rows": {
            held.name or "validation": len(held.features)
            for held in plan.preparation.evaluation_sets
        },
        "seconds": round(seconds, 2),
        "tokens_per_second": speed,
        "peak_device_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "device": plan.device,
        "precision": plan.precision,
        "seed": recipe.training.seed,
        "base": recipe.model.name,
    }
