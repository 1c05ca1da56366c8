"""What the reporting callback makes of the Trainer's state and logs."""

import json
import time
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from dcft_cli.errors import TrainingError
from dcft_cli.training.callbacks import ReportingCallback
from tests.jobs import Watcher


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


ARGS = TrainingArguments(use_cpu=True, eval_strategy="steps", eval_steps=1, report_to="none")
CONTROL = TrainerControl()


def begun(step: int = 0, best: float | None = None, log: Path | None = None) -> tuple:
    watcher = Watcher()
    callback = ReportingCallback(watcher, log, metric="f1", tokens_per_step=50.0)
    state = TrainerState(global_step=step, max_steps=20, epoch=0.0, best_metric=best)
    callback.on_train_begin(ARGS, state, CONTROL)
    return watcher, callback, state


def test_speed_and_time_left_exclude_evaluations(clock: Clock) -> None:
    watcher, callback, state = begun()
    clock.now += 10
    state.global_step = 5
    callback.on_step_end(ARGS, state, CONTROL)
    progress = watcher.steps[-1]
    assert (progress.tokens_per_second, progress.seconds_left) == (25.0, 30.0)
    with callback.scoring(4):
        clock.now += 1000
    callback.on_step_end(ARGS, state, CONTROL)
    assert watcher.steps[-1] == progress


def test_the_speed_of_a_resumed_run_counts_from_its_checkpoint(clock: Clock) -> None:
    watcher, callback, state = begun(step=10)
    callback.on_step_end(ARGS, state, CONTROL)
    at_first = watcher.steps[-1]
    assert (at_first.loss, at_first.learning_rate) == (None, None)
    assert (at_first.tokens_per_second, at_first.seconds_left) == (None, None)
    clock.now += 4
    state.global_step = 12
    callback.on_step_end(ARGS, state, CONTROL)
    assert (watcher.steps[-1].tokens_per_second, watcher.steps[-1].seconds_left) == (25.0, 16.0)


def test_the_last_step_is_logged_scored_and_saved() -> None:
    _, callback, state = begun()
    for step, last in ((19, False), (20, True)):
        control = TrainerControl()
        state.global_step = step
        callback.on_step_end(ARGS, state, control)
        flags = (control.should_log, control.should_evaluate, control.should_save)
        assert flags == (last, last, last)


@pytest.mark.parametrize("due", [True, False])
def test_the_loss_is_logged_before_every_evaluation(due: bool) -> None:
    """Else a row of scores would show the loss of earlier steps."""
    _, callback, state = begun()
    control = TrainerControl(should_evaluate=due)
    callback.on_step_end(ARGS, state, control)
    assert control.should_log is due


@pytest.mark.parametrize(
    ("better", "baselines", "expected"),
    [
        (True, {}, ["", ""]),
        (True, {"constant": 0.1}, ["", ""]),
        (True, {"constant": 0.1, "fitted head": 0.5}, ["= fitted head", ""]),
        (True, {"constant": 0.7, "fitted head": 0.6}, ["< constant", "< constant"]),
        (False, {"constant": 0.9, "fitted head": 0.55}, ["", "> fitted head"]),
    ],
)
def test_the_best_so_far_is_the_checkpoint_that_is_kept(
    better: bool, baselines: dict[str, float], expected: list[str]
) -> None:
    """It is marked whether or not it beats the baselines, and then says which it does not."""
    watcher = Watcher()
    callback = ReportingCallback(watcher, None, metric="f1", greater_is_better=better)
    state = TrainerState(max_steps=20)
    callback.on_train_begin(ARGS, state, CONTROL)
    for name, score in baselines.items():
        callback.baseline(name, {"f1": score}, write=False)
    for score in (0.5, 0.6):
        callback.on_evaluate(ARGS, state, CONTROL, metrics={"eval_f1": score})
    assert [best for _, _, best in watcher.scores] == [True, better]
    assert watcher.unbeaten == expected


@pytest.mark.parametrize(("earlier", "flags"), [(None, [1, 0, 1]), (0.55, [0, 0, 1])])
def test_best_so_far(earlier: float | None, flags: list[int]) -> None:
    watcher, callback, state = begun(best=earlier)
    for score in (0.5, 0.5, 0.6):
        callback.on_evaluate(ARGS, state, CONTROL, metrics={"eval_f1": score})
    assert [flag for _, _, flag in watcher.scores] == [bool(flag) for flag in flags]
    assert watcher.scores[-1][1] == {"f1": 0.6}


@pytest.mark.parametrize(
    "logs",
    [
        {"loss": float("nan"), "learning_rate": 0.1, "grad_norm": 1.0},
        {"loss": float("inf"), "learning_rate": 0.1},
        {"loss": 1.0, "learning_rate": 0.1, "grad_norm": float("nan")},
    ],
)
def test_a_loss_that_is_not_finite_stops_training(logs: dict[str, float]) -> None:
    watcher, callback, state = begun(step=7)
    with pytest.raises(TrainingError, match="at step 7"):
        callback.on_log(ARGS, state, CONTROL, logs=logs)
    assert watcher.losses == []


def test_the_log_file(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    _, callback, state = begun(log=log)
    state.epoch = 1 / 3
    logs = {"loss": 0.5, "learning_rate": 0.1, "grad_norm": 2.0}
    callback.on_log(ARGS, state, CONTROL, logs=logs)
    callback.on_log(ARGS, state, CONTROL, logs={"eval_f1": 0.25})  # scores come by on_evaluate
    callback.on_log(ARGS, state, CONTROL, logs={"train_runtime": 3.0})
    callback.on_evaluate(ARGS, state, CONTROL, metrics={"eval_f1": 0.25})
    losses, scores = (json.loads(line) for line in log.read_text().splitlines())
    assert losses == {"step": 0, "epoch": 0.3333, **logs, "tokens_per_second": None}
    assert scores == {"step": 0, "epoch": 0.3333, "scores": {"f1": 0.25}}
