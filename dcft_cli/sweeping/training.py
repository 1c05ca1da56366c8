"""One run of a sweep: trained like `dcft train`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dcft_cli.errors import RunError, TrainingError
from dcft_cli.recipe import LoadedRecipe
from dcft_cli.recipe.ranges import Range
from dcft_cli.runs.folder import RunFolder
from dcft_cli.runs.plan import TrainingPlan, plan_training, run_folder
from dcft_cli.runs.train import train
from dcft_cli.sweeping.board import Run
from dcft_cli.sweeping.view import SweepView
from dcft_cli.training.checkpoints import step_of
from dcft_cli.training.reporting import Progress, Reporter, Scores

if TYPE_CHECKING:
    from optuna import Trial


def train_run(
    loaded: LoadedRecipe,
    folder: Path,
    reporter: "RunReporter",
    *,
    resume: bool,
) -> dict[str, Any]:
    """Train a run into its folder.

    Args:
        resume: whether to continue from the folder's last checkpoint, if there is one; else an
            earlier run in the folder is replaced.

    Returns:
        What the sweep records: metric, score, step and seconds.

    Raises:
        DCFTError: the run cannot start or be finished.
    """
    with run_folder(loaded, str(folder)).lock() as note:
        if note:
            reporter.noted(note)
        resume = resume and RunFolder(folder).last_checkpoint() is not None
        plan = plan_training(loaded, output=str(folder), overwrite=not resume, resume=resume)
        return _train(plan, reporter)


def _train(plan: TrainingPlan, reporter: "RunReporter") -> dict[str, Any]:
    """Train as planned; return what the sweep records."""
    if not plan.preparation.evaluation_sets:
        raise RunError(
            "There are no rows to score, so runs cannot be compared.",
            "Set data.validation or data.holdout.",
        )
    task = plan.preparation.loaded
    reporter.metric = task.main_metric
    metrics = train(plan, reporter).metrics
    score = metrics["metrics"].get(task.main_metric)
    if score is None or not math.isfinite(score):
        raise TrainingError(f"The run has no score: {task.main_metric} is {score}.")
    return {
        "metric": task.main_metric,
        "greater_is_better": task.greater_is_better,
        "score": score,
        "step": metrics["best_step"],
        "seconds": metrics["seconds"],
    }


def suggest(trial: "Trial", ranges: Mapping[str, Range]) -> dict[str, float]:
    """Return the numbers that a search tries next, by dotted key."""
    return {
        key: trial.suggest_int(key, int(numbers.low), int(numbers.high))
        if numbers.is_whole
        else trial.suggest_float(key, numbers.low, numbers.high, log=numbers.is_log)
        for key, numbers in ranges.items()
    }


class RunReporter(Reporter):
    """Passes the events of a run on to the sweep's view, and its scores to a search.

    Args:
        trial: of a search, which may stop it; None for a run that is not part of one.
        earlier: scores by step of an attempt before; those up to the checkpoint that is resumed
            count.

    Attributes:
        metric: the main one; to be set before the first evaluation.
        last_result: metric, score and step of the last evaluation.
    """

    def __init__(
        self,
        run: Run,
        view: SweepView,
        trial: "Trial | None" = None,
        earlier: Mapping[int, float] | None = None,
    ) -> None:
        self.metric = ""
        self.last_result: dict[str, Any] = {}
        self._run = run
        self._view = view
        self._trial = trial
        if trial is not None:
            checkpoint = RunFolder(run.folder).last_checkpoint()
            for step, score in (earlier or {}).items():
                if checkpoint is not None and step <= step_of(checkpoint):
                    trial.report(score, step)

    def noted(self, text: str) -> None:
        """Pass a note on."""
        self._view.noted(self._run, text)

    def progress(self, progress: Progress) -> None:
        """Pass a step on."""
        self._view.progress(progress)

    def evaluated(self, step: int, scores: Scores, best: bool, unbeaten: str) -> None:
        """Tell the search, which stops the run if the median of the others was better.

        Raises:
            TrialPruned: the run is not worth going on.
        """
        self.last_result = {"metric": self.metric, "score": scores[self.metric], "step": step}
        if self._trial is None:
            return
        from optuna import TrialPruned

        self._trial.report(scores[self.metric], step)
        if self._trial.should_prune():
            raise TrialPruned
