"""`dcft train`: plan, then train, keep the best checkpoint, and write the run folder."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import DataCollatorWithPadding, EarlyStoppingCallback, TrainingArguments, set_seed

from dcft_cli.adapter.contents import read_adapter
from dcft_cli.adapter.file import load_tensors, save_adapter
from dcft_cli.adapter.fingerprint import fingerprint
from dcft_cli.adapter.inject import adapter_layers, head_parameters, inject
from dcft_cli.errors import AdapterFileError, RunError
from dcft_cli.models import load_model
from dcft_cli.recipe import LoadedRecipe, Recipe, dump_recipe
from dcft_cli.runs.folder import RunFolder, step_of, write_json
from dcft_cli.runs.plan import AdapterPlan, adapter_config, plan_adapter
from dcft_cli.runs.preparation import Preparation, description, prepare
from dcft_cli.training.arguments import device_in_words, optimizer_steps, training_arguments
from dcft_cli.training.callbacks import ReportingCallback
from dcft_cli.training.reporting import Reporter
from dcft_cli.training.trainer import CHECKPOINT_FILE, AdapterTrainer


@dataclass(frozen=True)
class TrainingPlan:
    """All that training will do, found out without loading a weight.

    Attributes:
        steps_per_epoch, total_steps: optimizer steps.
        tokens: input tokens of the training set, padding not counted.
    """

    preparation: Preparation
    adapter: AdapterPlan
    arguments: TrainingArguments
    folder: RunFolder
    steps_per_epoch: int
    total_steps: int
    tokens: int

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return self.preparation.recipe

    @property
    def train_rows(self) -> int:
        """Encoded training rows (for question answering: windows)."""
        assert self.preparation.train_set is not None
        return len(self.preparation.train_set)

    @property
    def batch_size(self) -> int:
        """Rows of one optimizer step, on all devices together."""
        args = self.arguments
        return int(args.train_batch_size * args.world_size * args.gradient_accumulation_steps)

    @property
    def device(self) -> str:
        """Where it runs, in words."""
        return device_in_words(self.arguments.device)

    @property
    def precision(self) -> str:
        """Type of the computation."""
        mixed = {self.arguments.bf16: "bfloat16", self.arguments.fp16: "float16"}
        return mixed.get(True, "float32")


@dataclass(frozen=True)
class TrainingResult:
    """A finished run; `metrics` is what metrics.json holds."""

    folder: RunFolder
    metrics: dict[str, Any] = field(repr=False)


def plan_training(
    loaded: LoadedRecipe,
    *,
    output: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> TrainingPlan:
    """Checks recipe, data, model configuration, device and output folder.

    Args:
        output: run folder; goes before the recipe's own and the default, runs/NAME.
        overwrite: an earlier run in the folder may be replaced.
        resume: go on from the folder's last checkpoint.

    Raises:
        UserError: whatever does not fit.
    """
    recipe = loaded.recipe
    place = Path(output or recipe.training.output or Path("runs") / loaded.name)
    folder = RunFolder(place)
    folder.check_free(overwrite=overwrite, resume=resume)
    machine = training_arguments(recipe.training, recipe.model, output=folder.checkpoints)
    preparation = prepare(recipe)
    assert preparation.train_set is not None
    recipe = preparation.recipe
    per_epoch, total = optimizer_steps(
        recipe.training, len(preparation.train_set), machine.train_batch_size * machine.world_size
    )
    scored = bool(preparation.evaluation_sets)
    arguments = training_arguments(
        recipe.training,
        recipe.model,
        output=folder.checkpoints,
        steps_per_epoch=per_epoch,
        total_steps=total,
        metric=preparation.loaded.main_metric if scored else None,
        greater_is_better=preparation.loaded.greater_is_better,
    )
    return TrainingPlan(
        preparation=preparation,
        adapter=plan_adapter(recipe.adapter, preparation.config, preparation.auto_class),
        arguments=arguments,
        folder=folder,
        steps_per_epoch=per_epoch,
        total_steps=total,
        tokens=sum(preparation.train_set["length"][:]),
    )


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
    base = load_model(recipe.model, preparation.config, preparation.auto_class)
    model = inject(base.model, adapter_config(recipe.adapter), head=base.lacking)
    if recipe.training.gradient_checkpointing:
        # transformers 5.17 knows it by its older name alone.
        enable = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    mark = fingerprint(model, exclude=base.lacking)
    if checkpoint is not None:
        _check_checkpoint(checkpoint, model, mark, plan)

    def save(path: Path) -> None:
        save_adapter(
            model,
            path,
            base_name=recipe.model.name,
            base_revision=getattr(preparation.config, "_commit_hash", None)
            or recipe.model.revision,
            base_fingerprint=mark,
            info=description(recipe),
        )

    if args.should_save:
        if checkpoint is None:
            folder.clear()
        else:
            folder.forget_after(step_of(checkpoint))
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.recipe.write_text(dump_recipe(recipe), encoding="utf-8")
        preparation.tokenizer.save_pretrained(folder.path)
    reporting = ReportingCallback(
        reporter,
        folder.log if args.should_save else None,
        metric=preparation.loaded.main_metric,
        greater_is_better=preparation.loaded.greater_is_better,
        tokens_per_step=plan.tokens / plan.steps_per_epoch,
    )
    patience = recipe.training.early_stopping_patience
    trainer = AdapterTrainer(
        model,
        args,
        tokenizer=preparation.tokenizer,
        collator=DataCollatorWithPadding(preparation.tokenizer),
        train_set=preparation.train_set,
        evaluation_sets=preparation.evaluation_sets,
        orthogonality_weight=recipe.adapter.orthogonality,
        orthogonality_form=recipe.adapter.orthogonality_form,
        group_by_length=recipe.training.group_by_length,
        save=save,
        reporting=reporting,
        callbacks=[EarlyStoppingCallback(patience)] if patience else [],
    )
    began = time.perf_counter()
    if checkpoint is not None and step_of(checkpoint) >= plan.total_steps:
        trainer.take_up(checkpoint)  # the Trainer would take one step more
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - began
    metrics = _metrics(plan, trainer, reporting.tokens_per_second, seconds)
    if args.should_save:
        save(folder.adapter)
        write_json(folder.metrics, metrics)
    return TrainingResult(folder, metrics)


def _check_checkpoint(path: Path, model: nn.Module, mark: str, plan: TrainingPlan) -> None:
    """The checkpoint holds this recipe's adapter, of this base."""
    contents = read_adapter(path / CHECKPOINT_FILE)
    if contents.base["fingerprint"] != mark:
        raise AdapterFileError(
            f"{path} was trained on other base weights than {plan.recipe.model.name}.",
            "Resume with the recipe that the run was started with.",
        )
    planned = replace(plan.adapter.config, stride=plan.adapter.config.window_step)
    same = replace(contents.config, targets=planned.targets) == planned
    if not same or contents.factors.keys() != adapter_layers(model).keys():
        raise RunError(
            f"{path} holds another adapter than the recipe describes.",
            "Resume with the recipe that the run was started with, or use another --output.",
        )
    load_tensors(model, contents)


def _metrics(
    plan: TrainingPlan, trainer: AdapterTrainer, speed: float | None, seconds: float
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
