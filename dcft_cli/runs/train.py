"""`dcft train`: train as planned, keep the best checkpoint, and write the run folder."""

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback, set_seed

from dcft_cli.acceleration import enable
from dcft_cli.adapter_file.load import check_fingerprint
from dcft_cli.adapter_file.read import ADAPTER_FILE, read_contents
from dcft_cli.adapter_file.write import describe, round_trained
from dcft_cli.atomic import atomic_path, naming
from dcft_cli.data.writing import write_rows
from dcft_cli.errors import RunError
from dcft_cli.failures import is_out_of_memory
from dcft_cli.methods.build import build
from dcft_cli.methods.method import Method
from dcft_cli.models.head import reuse_head
from dcft_cli.models.loading import BaseModel, base_fingerprint, check_finite, load_model
from dcft_cli.recipe import dump_recipe
from dcft_cli.runs.adapter_plan import targets_of
from dcft_cli.runs.batch_size import free_memory, smaller_batches
from dcft_cli.runs.folder import RunFolder
from dcft_cli.runs.plan import TrainingPlan
from dcft_cli.runs.prepare import adapter_info, with_absolute_paths
from dcft_cli.runs.presence import Presence
from dcft_cli.runs.resumption import Resumption
from dcft_cli.runs.start import constant_prediction, start
from dcft_cli.targets.head import find_parts
from dcft_cli.targets.resolve import general_name
from dcft_cli.tasks.prior import Prior
from dcft_cli.training.arguments import training_arguments
from dcft_cli.training.callbacks import EarlyStopping, ReportingCallback
from dcft_cli.training.checkpointing import checkpoint_activations
from dcft_cli.training.checkpoints import step_of
from dcft_cli.training.compiling import compile_model, convert_compile_errors
from dcft_cli.training.diagnosis import CONSTANT, diagnose
from dcft_cli.training.distributed import (
    has_unreached,
    move_whole,
    refuse_trained_shards,
    shard_frozen,
)
from dcft_cli.training.reporting import Reporter
from dcft_cli.training.trainer import METHOD_STATE, AdapterTrainer


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes:
        metrics: the content of metrics.json.
        trainer: the trainer, with the trained model; None if a finished run was resumed and
            there was nothing to do.
    """

    folder: RunFolder
    metrics: dict[str, Any] = field(repr=False)
    trainer: AdapterTrainer | None = field(default=None, repr=False)


def train(
    plan: TrainingPlan,
    reporter: Reporter,
    *,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    """Train as planned, from the beginning or from the checkpoint that the plan names.

    With `training.auto_batch_size`, go on in smaller batches if memory runs out.

    Args:
        reporter: gets notes, progress and scores.
        callbacks: further callbacks of the Trainer.

    Raises:
        ModelError: the base's weights cannot be loaded.
        TrainingError: the loss diverges.
        RunError, AdapterFileError: the checkpoint to resume does not fit.
    """
    while True:
        try:
            return _train(plan, reporter, callbacks)
        except Exception as error:
            smaller = smaller_batches(plan) if is_out_of_memory(error) else None
            if smaller is None:
                raise
        free_memory()  # after the exception, which held the model
        plan = smaller
        reporter.noted(
            f"Out of memory: continuing with training.batch_size={plan.recipe.training.batch_size} "
            "and training.gradient_accumulation_steps="
            f"{plan.recipe.training.gradient_accumulation_steps}, for the same steps."
        )
        if plan.folder.is_open and (checkpoint := plan.folder.last_checkpoint()):
            plan = replace(plan, resumption=Resumption(checkpoint, ()))


def _train(
    plan: TrainingPlan, reporter: Reporter, callbacks: Sequence[TrainerCallback]
) -> TrainingResult:
    """Train with the batches of the plan; see `train`."""
    recipe, folder = plan.recipe, plan.folder
    checkpoint = plan.resumption.checkpoint if plan.resumption else None
    _check_same_start(checkpoint)
    for note in plan.resumption.notes if plan.resumption else ():
        reporter.noted(note)
    patience = recipe.training.early_stopping_patience
    stopping = EarlyStopping(patience, resumed_from=checkpoint) if patience else None
    finished = _is_finished(plan, checkpoint, stopping, reporter)
    if finished and folder.metrics.exists() and folder.adapter.exists():
        return TrainingResult(folder, json.loads(folder.metrics.read_text(encoding="utf-8")))
    set_seed(recipe.training.seed)
    base, method, fingerprint = _attached(plan, reporter)
    if checkpoint is not None:
        _load_checkpoint(checkpoint, method, fingerprint)
    began = time.perf_counter()
    prior, constant_scores = constant_prediction(plan.preparation)
    acceleration = enable(base.model) if _is_accelerated(plan) else []
    own = [stopping] if stopping else []
    callbacks = [*own, Presence(folder), *callbacks]
    trainer = _trainer(plan, method, fingerprint, reporter, callbacks)
    if plan.machine.is_main:  # after all checks: an earlier run is overwritten from here on
        _open_folder(plan, reporter, checkpoint)
    if checkpoint is None:
        trainer.add_baseline(CONSTANT, constant_scores, write=True)
        start(base, trainer, plan.preparation, plan.machine, prior)
    else:
        for name, scores in {CONSTANT: constant_scores, **folder.baselines()}.items():
            trainer.add_baseline(name, scores, write=False)
    if recipe.training.compile:
        compile_model(base.model)
    if finished and checkpoint is not None:
        trainer.restore_finished_run(checkpoint)  # the Trainer would take another step
    else:
        compiling = convert_compile_errors() if recipe.training.compile else nullcontext()
        with compiling, naming(folder.checkpoints):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    metrics = _metrics(plan, trainer, prior, time.perf_counter() - began)
    metrics["acceleration"] = acceleration
    _finish(plan, trainer, metrics)
    return TrainingResult(folder, metrics, trainer)


def _check_same_start(checkpoint: Path | None) -> None:
    """Check that all processes have read the same run folder; only then may one write there."""
    names: list[str] = gather_object([checkpoint.name if checkpoint else "none"])
    if len(set(names)) > 1:
        raise RunError(
            f"The processes see different checkpoints: {', '.join(sorted(set(names)))}.",
            "All machines of a run need the same run folder, on a shared file system.",
        )


def _is_finished(
    plan: TrainingPlan, checkpoint: Path | None, stopping: EarlyStopping | None, reporter: Reporter
) -> bool:
    """Return whether there is nothing left to train after a checkpoint, and note why."""
    if checkpoint is None:
        return False
    if stopping is not None and stopping.is_due:
        reporter.noted(
            f"The run had stopped early, after {stopping.early_stopping_patience} evaluations "
            "without a better score; --resume with a higher training.early_stopping_patience "
            "continues it, --overwrite starts over."
        )
        return True
    if step_of(checkpoint) >= plan.total_steps:
        reporter.noted(
            "The run is finished; --resume with a higher training.max_steps or epochs continues "
            "it, --overwrite starts over."
        )
        return True
    return False


def _finish(plan: TrainingPlan, trainer: AdapterTrainer, metrics: dict[str, Any]) -> None:
    """Score what the adapter file will hold, add decision and reports to `metrics`; write both."""
    recipe, folder, task = plan.recipe, plan.folder, plan.preparation.loaded.task
    dtype: torch.dtype = getattr(torch, recipe.adapter.file_dtype)
    needs_predictions = plan.preparation.evaluation_sets and (task.has_classes or task.chosen)
    if dtype != torch.float32:  # the scores are those of the file
        round_trained(trainer.adapted_model, dtype)
        metrics["metrics"] = trainer.score()
    elif needs_predictions and trainer.scored_step != metrics["best_step"]:
        trainer.score()
    metrics["decision"] = task.decision.to_json(task.choosable)
    metrics["chosen"] = list(task.chosen)
    metrics["reports"] = trainer.reports
    if not plan.machine.is_main:
        return
    info = adapter_info(recipe)
    if task.chosen:
        info["decision"] = task.decision.to_json(task.chosen)
    trainer.save_adapter(folder.adapter, info=info, dtype=dtype)
    with atomic_path(folder.metrics) as path:
        path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    folder.drop_previous()


def _is_accelerated(plan: TrainingPlan) -> bool:
    """Return whether to enable acceleration: not for a compiled, copied or split model."""
    training = plan.recipe.training
    # nn.DataParallel copies the layers at every step, to devices that share one set of hooks.
    alone = plan.machine.devices == 1 and not training.shard_base
    return training.acceleration == "auto" and not training.compile and alone


def _attached(plan: TrainingPlan, reporter: Reporter) -> tuple[BaseModel, Method, str]:
    """Load the base model on its device, and attach the method where it affects the loss.

    Returns:
        The base, whose `missing_keys` are the parameters of the head to train; the method; and
        the fingerprint of the base's weights.
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
    parts = find_parts(model, targets_of(recipe.adapter), head=base.head, dense=recipe.head.dense)
    base = replace(base, missing_keys=base.missing_keys - parts.fixed)
    fingerprint = base_fingerprint(
        model, parts.trained | parts.fixed, recipe.model, preparation.auto_class
    )
    method = build(recipe.adapter, seed=recipe.training.seed, total_steps=plan.total_steps)
    if recipe.training.shard_base:
        shard_frozen(model, parts.trained | parts.fixed, device, plan.machine.processes)
        parts = find_parts(
            model, targets_of(recipe.adapter), head=base.head, dense=recipe.head.dense
        )
    method.attach(model, parts)
    refuse_trained_shards(model, recipe.adapter.method)
    move_whole(model, device)
    left_out = method.remove_unreached(_longest_batch(plan, model))
    if left_out:
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


def _longest_batch(plan: TrainingPlan, model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the longest rows: in a text of one token, queries and keys do not affect the loss."""
    assert plan.preparation.train_set is not None
    longest = np.argsort(plan.preparation.train_set["length"][:])[-2:]
    return plan.preparation.training_batch(model, longest, plan.machine.device)


def _load_checkpoint(path: Path, method: Method, fingerprint: str) -> None:
    """Load a checkpoint to resume, after checking that it has this recipe's adapter and base."""
    contents = read_contents(path / ADAPTER_FILE)
    check_fingerprint(contents, fingerprint)
    same = contents.method == method.settings.method and method.fits(contents)
    if not (same and dict(contents.model) == describe(method.model)):
        raise RunError(
            f"{path} has another adapter, or other labels, than the recipe describes.",
            "Resume with the recipe that the run was started with, or use another --output.",
        )
    method.load(contents)
    if (state := path / METHOD_STATE).exists():
        method.load_state(load_file(state))


def _trainer(
    plan: TrainingPlan,
    method: Method,
    fingerprint: str,
    reporter: Reporter,
    callbacks: Sequence[TrainerCallback],
) -> AdapterTrainer:
    recipe, preparation = plan.recipe, plan.preparation
    task = preparation.loaded.task
    metric, better = preparation.loaded.main_metric, preparation.loaded.greater_is_better
    args = training_arguments(
        recipe.training,
        plan.machine,
        output=plan.folder.checkpoints,
        steps_per_epoch=plan.steps_per_epoch,
        total_steps=plan.total_steps,
        metric=metric if preparation.evaluation_sets else None,
        greater_is_better=better,
        find_unused=plan.machine.processes > 1
        and has_unreached(method.model, _longest_batch(plan, method.model)),
    )
    reporting = ReportingCallback(
        reporter,
        plan.folder.log if plan.machine.is_main else None,
        metric=metric,
        greater_is_better=better,
        tokens_per_step=plan.tokens / plan.steps_per_epoch,
    )
    base = {"name": recipe.model.name, "revision": recipe.model.revision}
    save = partial(
        method.save, base={**base, "fingerprint": fingerprint}, info=adapter_info(recipe)
    )
    return AdapterTrainer(
        method,
        args,
        recipe,
        tokenizer=preparation.tokenizer,
        collator=preparation.collator(args.device),
        train_set=preparation.train_set,
        evaluation_sets=preparation.evaluation_sets,
        save=save,
        loss=None if task.class_weights is None else task.weighted_loss,
        identity=plan.identity,
        reporting=reporting,
        callbacks=callbacks,
    )


def _open_folder(plan: TrainingPlan, reporter: Reporter, checkpoint: Path | None) -> None:
    """Prepare the run folder: empty, or as it was at the checkpoint to resume."""
    folder = plan.folder
    folder.is_open = True
    folder.path.mkdir(parents=True, exist_ok=True)
    if checkpoint is not None:
        folder.truncate_log(step_of(checkpoint))
    elif folder.make_room():
        reporter.noted(
            f"The earlier run is kept in {folder.previous.path} until this one has an adapter."
        )
    for left in folder.path.glob(".*.part"):  # by a process that was killed
        left.unlink()
    recipe = with_absolute_paths(plan.recipe, folder.path)
    with atomic_path(folder.recipe) as path:  # a resumed run is compared with it
        path.write_text(dump_recipe(recipe), encoding="utf-8")
    with naming(folder.path):
        plan.preparation.tokenizer.save_pretrained(folder.path)
    if (held_out := plan.preparation.loaded.held_out) is not None:
        write_rows(folder.holdout, held_out.records)


def _metrics(
    plan: TrainingPlan, trainer: AdapterTrainer, prior: Prior | None, seconds: float
) -> dict[str, Any]:
    """Return the content of metrics.json: scores of best and last step, sizes and costs."""
    recipe, state, machine = plan.recipe, trainer.state, plan.machine
    main_metric = plan.preparation.loaded.main_metric
    scores = {
        record["step"]: {
            n.removeprefix("eval_"): v for n, v in record.items() if n.startswith("eval_")
        }
        for record in state.log_history
        if f"eval_{main_metric}" in record
    }
    best_step = state.best_global_step or state.global_step
    best = scores.get(best_step, {})
    method = trainer.method
    weight_change = method.weight_change()
    main = {name: s[main_metric] for name, s in trainer.baselines.items() if main_metric in s}
    if trainer.loss is not None:
        main = {}  # class weights trade such a score for better rare classes
    # With a term of the method's own, training losses are not comparable to the prior's.
    constant_loss = None if prior is None or method.penalty() is not None else prior.loss
    notes = diagnose(
        state.log_history,
        best.get(main_metric),
        main,
        metric=main_metric,
        greater_is_better=plan.preparation.loaded.greater_is_better,
        failure=trainer.failure,
        constant_loss=constant_loss,
        weight_change=weight_change,
        learning_rate=recipe.training.learning_rate,
        method=recipe.adapter.method,
    )
    on_cuda = machine.device.type == "cuda"
    return {
        "task": recipe.task.name or recipe.task.kind,
        "main_metric": main_metric,
        "metrics": best,
        "best_step": best_step,
        "last_metrics": scores.get(state.global_step, {}),
        "last_step": state.global_step,
        "baselines": {name.replace(" ", "_"): dict(v) for name, v in trainer.baselines.items()},
        "weight_change": weight_change,
        "total_steps": plan.total_steps,
        "epochs": round(state.epoch or 0.0, 4),
        "train_loss": next((r["loss"] for r in reversed(state.log_history) if "loss" in r), None),
        "method": recipe.adapter.method,
        "adapter_parameters": method.trained_parameters(),
        "head_parameters": sum(p.numel() for p in method.head().values()),
        **({"method_facts": facts} if (facts := method.facts()) else {}),
        "train_rows": plan.train_rows,
        "validation_rows": plan.preparation.validation_rows,
        "seconds": round(seconds, 2),
        "tokens_per_second": trainer.reporting.tokens_per_second,
        "peak_device_bytes": torch.cuda.max_memory_allocated() if on_cuda else None,
        "device": machine.device_name,
        "precision": machine.precision,
        "seed": recipe.training.seed,
        "base": recipe.model.name,
        "settings": recipe.model_dump(mode="json", exclude_none=True, exclude={"sweep"}),
        "notes": notes,
    }
