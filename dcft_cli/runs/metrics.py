"""metrics.json of a run."""

from typing import Any

import torch

from dcft_cli.runs.plan import TrainingPlan
from dcft_cli.tasks.prior import Prior
from dcft_cli.training.diagnosis import diagnose
from dcft_cli.training.trainer import AdapterTrainer


def run_metrics(plan: TrainingPlan, trainer: AdapterTrainer, prior: Prior | None) -> dict[str, Any]:
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
    if recipe.training.class_weights:
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
        "seconds": round(trainer.seconds, 2),
        "tokens_per_second": trainer.reporting.tokens_per_second,
        "peak_device_bytes": torch.cuda.max_memory_allocated() if on_cuda else None,
        "device": machine.device_name,
        "precision": machine.precision,
        "seed": recipe.training.seed,
        "base": recipe.model.name,
        "settings": recipe.model_dump(mode="json", exclude_none=True, exclude={"sweep"}),
        "notes": notes,
    }
