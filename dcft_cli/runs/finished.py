"""Whether a run that would be resumed has nothing left to train."""

from pathlib import Path

from dcft_cli.recipe import TrainingSection
from dcft_cli.runs.plan import TrainingPlan
from dcft_cli.training.callbacks import EarlyStopping
from dcft_cli.training.checkpoints import step_of


def finished_note(plan: TrainingPlan) -> str:
    """Return why there is nothing left to train after the plan's checkpoint; "" if there is."""
    checkpoint = plan.resumption.checkpoint if plan.resumption else None
    if checkpoint is None:
        return ""
    stopping = early_stopping(plan.recipe.training, checkpoint)
    if stopping is not None and stopping.is_due:
        return (
            f"The run had stopped early, after {stopping.early_stopping_patience} evaluations "
            "without a better score; --resume with a higher training.early_stopping_patience "
            "continues it, --overwrite starts over."
        )
    if step_of(checkpoint) >= plan.total_steps:
        return (
            "The run is finished; --resume with a higher training.max_steps or epochs continues "
            "it, --overwrite starts over."
        )
    return ""


def early_stopping(training: TrainingSection, checkpoint: Path | None) -> EarlyStopping | None:
    """Return the callback that stops a run early, as it was at a checkpoint; None without one."""
    patience = training.early_stopping_patience
    return EarlyStopping(patience, resumed_from=checkpoint) if patience else None
