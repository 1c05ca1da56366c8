"""The results of a run: metrics.json and the adapter file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dcft_cli.adapter_file.write import round_values
from dcft_cli.atomic import atomic_path
from dcft_cli.runs.plan import TrainingPlan
from dcft_cli.runs.prepare import adapter_info
from dcft_cli.tasks.prior import Prior
from dcft_cli.training.checkpoints import step_of
from dcft_cli.training.diagnosis import diagnose
from dcft_cli.training.trainer import AdapterTrainer


def read_results(plan: TrainingPlan, checkpoint: Path) -> dict[str, Any] | None:
    """Return metrics.json of a run that ended with a checkpoint; None if it has no results yet.

    They are written last: there may be those of a shorter run, which then went on.
    """
    folder = plan.folder
    if not (folder.metrics.exists() and folder.adapter.exists()):
        return None
    metrics: dict[str, Any] = json.loads(folder.metrics.read_text(encoding="utf-8"))
    found = metrics["last_step"], metrics["settings"]["adapter"]["file_dtype"]
    return metrics if found == (step_of(checkpoint), plan.recipe.adapter.file_dtype) else None


def write_results(
    plan: TrainingPlan, trainer: AdapterTrainer, prior: Prior | None, acceleration: Sequence[str]
) -> dict[str, Any]:
    """Score what the adapter file will hold, and write it and metrics.json.

    Returns:
        The content of metrics.json.
    """
    recipe, folder, task = plan.recipe, plan.folder, plan.preparation.loaded.task
    metrics = _metrics(plan, trainer, prior)
    dtype: torch.dtype = getattr(torch, recipe.adapter.file_dtype)
    needs_predictions = plan.preparation.evaluation_sets and (task.has_classes or task.chosen)
    if dtype != torch.float32:  # the scores are those of the file
        method = trainer.method
        round_values((method.parameters() | method.head()).values(), dtype)
        metrics["metrics"] = trainer.score()
    elif needs_predictions and trainer.scored_step != metrics["best_step"]:
        trainer.score()
    metrics["acceleration"] = list(acceleration)
    metrics["decision"] = task.decision.to_json(task.choosable)
    metrics["chosen"] = list(task.chosen)
    metrics["reports"] = trainer.reports
    if plan.machine.is_main:
        info = adapter_info(recipe)
        if task.chosen:
            info["decision"] = task.decision.to_json(task.chosen)
        trainer.save_adapter(folder.adapter, info=info, dtype=dtype)
        with atomic_path(folder.metrics) as path:
            path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        folder.drop_previous()
    return metrics


def _metrics(plan: TrainingPlan, trainer: AdapterTrainer, prior: Prior | None) -> dict[str, Any]:
    """Return scores of best and last step, sizes and costs."""
    recipe, state, machine, method = plan.recipe, trainer.state, plan.machine, trainer.method
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
    weight_change = method.weight_change()
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
        "row_hashes": {
            "train": plan.identity["train_rows"],
            "validation": dict(plan.identity["validation_rows"]),
        },
        "seconds": round(trainer.seconds, 2),
        "tokens_per_second": trainer.reporting.tokens_per_second,
        "peak_device_bytes": torch.cuda.max_memory_allocated() if on_cuda else None,
        "device": machine.device_name,
        "precision": machine.precision,
        "seed": recipe.training.seed,
        "base": recipe.model.name,
        "settings": recipe.model_dump(mode="json", exclude_none=True, exclude={"sweep"}),
        "notes": [*_notes(plan, trainer, prior, best, weight_change), *method.notes(best_step)],
    }


def _notes(
    plan: TrainingPlan,
    trainer: AdapterTrainer,
    prior: Prior | None,
    best: Mapping[str, float],
    weight_change: float | None,
) -> list[str]:
    """Return what the run did not learn, given its best scores; see `diagnose`."""
    recipe, metric = plan.recipe, plan.preparation.loaded.main_metric
    baselines = {name: s[metric] for name, s in trainer.baselines.items() if metric in s}
    if recipe.training.class_weights:
        baselines = {}  # class weights trade such a score for better rare classes
    # With a term of the method's own, training losses are not comparable to the prior's.
    constant_loss = None if prior is None or trainer.method.penalty() is not None else prior.loss
    return diagnose(
        trainer.state.log_history,
        best.get(metric),
        baselines,
        metric=metric,
        greater_is_better=plan.preparation.loaded.greater_is_better,
        failure=trainer.failure,
        constant_loss=constant_loss,
        weight_change=weight_change,
        learning_rate=recipe.training.learning_rate,
        method=recipe.adapter.method,
    )
