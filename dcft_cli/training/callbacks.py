"""Trainer callbacks: progress for the reporter, the log file, and a stop on divergence."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState, TrainingArguments

from dcft_cli.atomic import append_line
from dcft_cli.errors import TrainingError
from dcft_cli.methods.method import Method
from dcft_cli.training.checkpoints import TRAINER_STATE, last_checkpoint
from dcft_cli.training.reporting import Progress, Reporter


def diverged(what: str, args: TrainingArguments, state: TrainerState) -> TrainingError:
    """Return the error for numbers that are not finite; it says which checkpoint is kept."""
    kept = last_checkpoint(Path(str(args.output_dir)))
    return TrainingError(
        f"Training diverged: {what} at step {state.global_step}.",
        "Lower training.learning_rate, or set training.precision=float32. "
        + (f"The last checkpoint before it is kept: {kept}." if kept else "No checkpoint exists."),
    )


class BeforeFirstStep(TrainerCallback):
    """Call a function when the model is ready for training, before the first step."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Call the function."""
        self.function()


class MethodSteps(TrainerCallback):
    """Let a method change its parameters after each optimizer step, while gradients are there."""

    def __init__(self, method: Method) -> None:
        self.method = method

    def on_optimizer_step(
        self, args: Any, state: TrainerState, *others: Any, **kwargs: Any
    ) -> None:
        """Call the method; the Trainer counts the step afterwards."""
        self.method.after_step(state.global_step + 1)


class EarlyStopping(EarlyStoppingCallback):
    """Stop after `patience` evaluations without a better score, those before a resume included.

    Args:
        resumed_from: the checkpoint to resume. Only the count of evaluations is restored: the
            patience is that of the recipe.
    """

    def __init__(self, patience: int, resumed_from: Path | None = None) -> None:
        super().__init__(patience)
        if resumed_from is not None:
            state = TrainerState.load_from_json(str(resumed_from / TRAINER_STATE))
            # There is nothing to restore if the run had no patience before.
            saved = (state.stateful_callbacks or {}).get(type(self).__name__, {})
            self.early_stopping_patience_counter = saved.get("attributes", {}).get(
                "early_stopping_patience_counter", 0
            )

    @property
    def is_due(self) -> bool:
        """Whether the patience has run out."""
        return self.early_stopping_patience_counter >= self.early_stopping_patience


class ReportingCallback(TrainerCallback):
    """Report every step, loss and score, and append them to the log file.

    Args:
        log: file of one JSON object per line; None writes none.
        metric, greater_is_better: the score that picks the best checkpoint.
        tokens_per_step: mean number of input tokens of an optimizer step, without padding.
    """

    def __init__(
        self,
        reporter: Reporter,
        log: Path | None,
        *,
        metric: str,
        greater_is_better: bool = True,
        tokens_per_step: float = 0.0,
    ) -> None:
        self.reporter = reporter
        self.log = log
        self.tokens_per_step = tokens_per_step
        self.metric = metric
        self.loss: float | None = None
        self.learning_rate: float | None = None
        self.sign = 1 if greater_is_better else -1
        self.best = -math.inf
        self._baselines: dict[str, float] = {}
        self.tokens_per_second: float | None = None
        self.first_step = 0
        self._began = 0.0
        self._scoring_seconds = 0.0
        self._batches_done = self._batches_total = 0

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Start the clock; a resumed run counts from the checkpoint's step."""
        self.first_step = state.global_step
        if self.first_step:
            self.reporter.noted(f"Resuming after step {self.first_step} of {state.max_steps}.")
        self._began, self._scoring_seconds = time.perf_counter(), 0.0

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Report the step; have the loss logged before scores, and the last step saved.

        A row of scores then has the loss of the steps before it, for any `logging_steps`.
        """
        self.reporter.progress(self._progress(state))
        control.should_log |= control.should_evaluate
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_save = args.save_strategy != "no"
            control.should_evaluate = args.eval_strategy != "no"

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Report an early stop."""
        if state.global_step < state.max_steps:
            self.reporter.noted(
                f"Stopped early, after step {state.global_step} of {state.max_steps}: "
                f"{self.metric} was best at step {state.best_global_step}, and "
                "training.early_stopping_patience has run out."
            )

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Report loss and learning rate from the Trainer's log.

        Raises:
            TrainingError: the loss or its gradient is not finite.
        """
        logs = kwargs["logs"]
        if "loss" not in logs:
            return
        record = {name: logs.get(name) for name in ("loss", "learning_rate", "grad_norm")}
        self.loss, self.learning_rate = record["loss"], record["learning_rate"]
        if args.fp16 and not math.isfinite(record["grad_norm"] or 0.0):
            record["grad_norm"] = None  # float16 searches for its loss scale; the step is skipped
        if not all(math.isfinite(value or 0.0) for value in record.values()):
            numbers = f"loss {self.loss}, gradient norm {record['grad_norm']}"
            raise diverged(numbers, args, state)
        progress = self._progress(state)
        self.reporter.logged(progress)
        self._write(state, **record, tokens_per_second=progress.tokens_per_second)

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Report the scores."""
        scores = {name.removeprefix("eval_"): value for name, value in kwargs["metrics"].items()}
        score = self.sign * scores[self.metric]
        if state.best_metric is not None:  # from before a resume
            self.best = max(self.best, self.sign * state.best_metric)
        best = score > self.best
        self.best = max(self.best, score)
        self.reporter.evaluated(state.global_step, scores, best, self._unbeaten(score))
        self._write(state, scores=scores)

    def baseline(self, name: str, scores: Mapping[str, float], *, write: bool) -> None:
        """Report scores reached without training, which a run should beat."""
        self._baselines[name] = self.sign * scores[self.metric]
        self.reporter.baseline(name, scores)
        if write:
            self._write(TrainerState(), baseline=name, scores=scores)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report how much of the validation data is scored."""
        self._batches_done += 1
        self.reporter.evaluating(self._batches_done, self._batches_total)

    @contextmanager
    def scoring(self, batches: int) -> Iterator[None]:
        """Context for one evaluation; its time is excluded from the training throughput."""
        self._batches_done, self._batches_total = 0, batches
        began = time.perf_counter()
        yield
        self._scoring_seconds += time.perf_counter() - began

    def _unbeaten(self, score: float) -> str:
        """Return how a score compares with the best baseline; empty if it is better."""
        if not self._baselines:
            return ""
        name, baseline = max(self._baselines.items(), key=lambda item: item[1])
        if score > baseline:
            return ""
        worse = "<" if self.sign > 0 else ">"
        return f"{'=' if score == baseline else worse} {name}"

    def _progress(self, state: TrainerState) -> Progress:
        seconds = time.perf_counter() - self._began - self._scoring_seconds
        steps = state.global_step - self.first_step
        speed = steps / seconds if steps and seconds else None
        self.tokens_per_second = speed and speed * self.tokens_per_step
        return Progress(
            step=state.global_step,
            total_steps=state.max_steps,
            epoch=state.epoch or 0.0,
            loss=self.loss,
            learning_rate=self.learning_rate,
            tokens_per_second=self.tokens_per_second,
            seconds_left=speed and (state.max_steps - state.global_step) / speed,
        )

    def _write(self, state: TrainerState, **record: Any) -> None:
        if self.log is None:
            return
        line = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 4), **record}
        append_line(self.log, json.dumps(line))
