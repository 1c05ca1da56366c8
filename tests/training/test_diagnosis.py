"""Notes on runs that do not learn."""

import math

import pytest
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from dcft_cli import adapter_layers
from dcft_cli.training.diagnosis import CONSTANT, FITTED_HEAD, LearningCheck, relative_change
from tests.jobs import Watcher
from tests.small import Fused, adapt, delta_of

ARGS = TrainingArguments(use_cpu=True, report_to="none")


def checked(
    score: float,
    *,
    baselines: dict[str, float] | None = None,
    failure: str = "",
    loss: float = 0.5,
    grad_norm: float = 1.0,
    better: bool = True,
    step: int = 5,
) -> tuple[LearningCheck, Watcher]:
    """A check after the first of two evaluations."""
    watcher = Watcher()
    check = LearningCheck(watcher, metric="score", greater_is_better=better, constant_loss=0.7)
    check.baselines = {CONSTANT: 0.5} if baselines is None else baselines
    check.failure = failure
    state, control = TrainerState(global_step=step, max_steps=10), TrainerControl()
    check.on_train_begin(ARGS, state, control)
    check.on_log(ARGS, state, control, logs={"loss": loss, "grad_norm": grad_norm})
    check.on_evaluate(ARGS, state, control, metrics={"eval_score": score})
    return check, watcher


@pytest.mark.parametrize(
    ("score", "settings"),
    [
        (0.9, {"baselines": {CONSTANT: 0.5, FITTED_HEAD: 0.7}}),
        (0.1, {"better": False}),
        (0.9, {"grad_norm": math.nan}),  # of a step that float16 skips
        (0.9, {"loss": 0.9}),  # high because of dropout or label noise
        # a perfect baseline can only be equaled
        (1.0, {"baselines": {CONSTANT: 0.5, FITTED_HEAD: 1.0}}),
        (100.0, {"baselines": {CONSTANT: 0.5, FITTED_HEAD: 100.0}}),
        (0.0, {"baselines": {CONSTANT: 2.0, FITTED_HEAD: 0.0}, "better": False}),
    ],
)
def test_a_run_that_learns_gets_no_note(score: float, settings: dict) -> None:
    check, watcher = checked(score, **settings)
    assert watcher.notes == []
    assert check.conclude(score, 0.05, 5e-3) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"failure": "every row is predicted sports"}, "after 5 steps every row is predicted"),
        ({"grad_norm": 0.0}, "every gradient has been zero"),
        ({"score": -0.97, "baselines": {CONSTANT: 0.0}}, "-0.97 is worse than the constant's 0"),
        ({"score": 0.6, "better": False}, "0.6 is worse than the constant's 0.5"),
    ],
)
def test_the_first_evaluation_notes_what_is_wrong(settings: dict, said: str) -> None:
    check, watcher = checked(**{"score": 0.9, **settings})
    (note,) = watcher.notes
    assert note.startswith("Nothing is learned yet: ") and said in note
    check.on_evaluate(ARGS, TrainerState(global_step=6, max_steps=10), TrainerControl(), metrics={})
    assert len(watcher.notes) == 1  # once


def test_the_last_evaluation_leaves_the_note_to_the_conclusion() -> None:
    _, watcher = checked(0.1, failure="every row is predicted sports", step=10)
    assert watcher.notes == []


@pytest.mark.parametrize(
    ("settings", "best", "change", "said", "setting"),
    [
        ({}, 0.5, 0.05, "score 0.5 is not better than the constant's 0.5", "=0.015 and 0.0017"),
        ({"baselines": {CONSTANT: 0.5, FITTED_HEAD: 0.9}}, 0.8, 0.05, "fitted head's 0.9", "=0.01"),
        ({"failure": "every row is predicted sports"}, 0.5, 0.05, "learn: every row", "=0.015"),
        (
            {"failure": "every row is sports"},
            0.9,
            0.05,
            "last checkpoint fails: every",
            "to 0.0005",
        ),
        ({"grad_norm": 0.0}, 0.9, 0.05, "every gradient was zero", "adapter.targets"),
        ({}, 0.9, 2e-5, "by 2.0e-05 of their size", "from 0.005, to 0.05 for"),
        (
            {},
            0.4,
            3.0,
            "score 0.4 is not better",
            "Lower training.learning_rate from 0.005, to 0.0",
        ),
        ({"loss": 0.71}, None, 0.05, "the loss, 0.71, is not below the constant's 0.7", "=0.015"),
        ({"better": False}, 0.6, 0.05, "score 0.6 is not better than", "=0.015"),
    ],
)
def test_the_conclusion_names_the_problem_and_the_setting_to_change(
    settings: dict, best: float | None, change: float, said: str, setting: str
) -> None:
    check, _ = checked(**{"score": 0.9, **settings})
    (note,) = check.conclude(best, change, 5e-3)
    assert said in note and setting in note


def test_a_resumed_run_restores_its_history() -> None:
    watcher = Watcher()
    check = LearningCheck(watcher, metric="score", greater_is_better=True, constant_loss=None)
    check.baselines, check.failure = {CONSTANT: 0.5}, "every row is predicted sports"
    state = TrainerState(global_step=7, max_steps=10)
    state.log_history = [{"loss": 0.4, "grad_norm": 0.0, "step": 5}, {"eval_score": 0.6, "step": 5}]
    check.on_train_begin(ARGS, state, TrainerControl())
    check.on_evaluate(ARGS, state, TrainerControl(), metrics={"eval_score": 0.1})
    assert watcher.notes == []  # said before
    assert "every gradient was zero" in check.conclude(0.9, 0.05, 5e-3)[0]


def test_the_relative_change_is_the_median_of_the_layers() -> None:
    model = adapt(nn.Sequential(Fused(), Fused()), "*")
    shares = sorted(
        (delta_of(a).norm() / a.target.matrix.parameter.double().norm()).item()
        for a in adapter_layers(model).values()
    )
    middle = (shares[(len(shares) - 1) // 2] + shares[len(shares) // 2]) / 2
    assert relative_change(model) == pytest.approx(middle, rel=1e-5)
    zero = nn.Sequential(nn.Linear(6, 6))
    assert relative_change(zero) is None
