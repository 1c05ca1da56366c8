"""Notes on runs that do not learn."""

import math
from typing import Any

import pytest

from dcft_cli.recipe.methods import METHODS
from dcft_cli.training.diagnosis import (
    CONSTANT,
    FITTED_HEAD,
    diagnose,
    first_impression,
)

ALIKE = "every row is predicted sports"


def notes(
    best: float | None,
    change: float = 0.05,
    *,
    fitted: float | None = None,
    constant: float = 0.5,
    failure: str = "",
    loss: float = 0.5,
    grad_norm: float = 1.0,
    better: bool = True,
    learning_rate: float = 5e-3,
) -> list[str]:
    worse = 0.3 if better else 0.9  # than the best one: no longer learning
    return diagnose(
        [{"loss": loss, "grad_norm": grad_norm}, {"eval_score": worse}],
        best,
        {CONSTANT: constant} if fitted is None else {CONSTANT: constant, FITTED_HEAD: fitted},
        metric="score",
        greater_is_better=better,
        failure=failure,
        constant_loss=0.7,
        weight_change=change,
        learning_rate=learning_rate,
    )


@pytest.mark.parametrize(
    ("best", "settings"),
    [
        (0.9, {"fitted": 0.7}),
        (0.1, {"better": False}),
        (0.9, {"grad_norm": math.nan}),  # of a step that float16 skips
        (0.9, {"loss": 0.9}),  # high because of dropout or label noise
        # a perfect baseline can only be equaled
        (1.0, {"fitted": 1.0}),
        (100.0, {"fitted": 100.0}),
        (0.0, {"constant": 2.0, "fitted": 0.0, "better": False}),
    ],
)
def test_a_run_that_learns_gets_no_note(best: float, settings: dict) -> None:
    assert notes(best, **settings) == []


@pytest.mark.parametrize(
    ("best", "change", "settings", "said", "setting"),
    [
        (0.5, 0.05, {}, "score 0.5 is not better than the constant's 0.5", "=0.015 and 0.0017"),
        (0.8, 0.05, {"fitted": 0.9}, "fitted head's 0.9", "=0.01"),
        (0.5, 0.05, {"failure": ALIKE}, f"did not learn: {ALIKE}", "=0.015"),
        (0.9, 0.05, {"failure": ALIKE}, f"last checkpoint fails: {ALIKE}", "to 0.0005"),
        (0.9, 0.05, {"grad_norm": 0.0}, "every gradient was zero", "adapter.targets"),
        (0.9, 2e-5, {}, "by 2.0e-05 of their size", "from 0.005, to 0.05 for"),
        (0.4, 3.0, {}, "score 0.4 is not better", "Lower training.learning_rate from 0.005, to"),
        (None, 0.05, {"loss": 0.71}, "the loss, 0.71, is not below the constant's 0.7", "=0.015"),
        (0.6, 0.05, {"better": False}, "score 0.6 is not better than", "=0.015"),
        (0.5, 0.05, {"loss": 0.71, "learning_rate": 0.03}, "the loss, 0.71,", "Lower training"),
        (0.5, 0.05, {"learning_rate": 0.03}, "score 0.5 is not better", "=0.09 and 0.01"),
    ],
)
def test_a_note_names_the_problem_and_the_setting_to_change(
    best: float | None, change: float, settings: dict, said: str, setting: str
) -> None:
    (note,) = notes(best, change, **settings)
    assert said in note and setting in note


def finished(
    scores: list[float], losses: list[float], *, better: bool = True, **settings: Any
) -> list[str]:
    """Return the notes on a run with these scores and losses, constant 0.5 and fitted head 0.9."""
    history = [{"loss": loss, "grad_norm": 1.0} for loss in losses]
    history += [{"eval_score": score} for score in scores]
    sign = 1 if better else -1
    given = {"failure": "", "learning_rate": 5e-3} | settings
    return diagnose(
        history,
        sign * max(sign * score for score in scores),
        {CONSTANT: 0.5, FITTED_HEAD: 0.9 if better else 0.1},
        metric="score",
        greater_is_better=better,
        constant_loss=0.7,
        weight_change=0.05,
        **given,
    )


FLAT = [0.5] * 4


@pytest.mark.parametrize(
    ("scores", "losses", "settings"),
    [
        ([0.5, 0.5, 0.7, 0.8], FLAT, {}),
        ([0.5, 0.5, 0.7, 0.9], FLAT, {}),  # level with the fitted head
        ([0.88, 0.885], FLAT, {}),
        ([0.8], [0.9, 0.6], {}),  # one evaluation: the loss is all there is
        ([0.8], [0.6], {}),  # one loss, below the constant's
        ([0.8, 0.8], [0.9, 0.9, 0.9, 0.6], {}),
        ([0.5, 0.4, 0.3, 0.2], FLAT, {"better": False}),
        ([0.7, 0.8], [0.9, 0.8], {}),  # the mean of all losses is above the constant's
    ],
)
def test_a_run_that_rises_towards_the_fitted_head_has_to_train_longer(
    scores: list[float], losses: list[float], settings: dict
) -> None:
    (note,) = finished(scores, losses, **settings)
    assert "did not learn" not in note
    assert note.startswith("This run still learns, but is not yet better than the fitted head: ")
    head = 0.9 if settings.get("better", True) else 0.1
    assert f"score {scores[-1]:.4g}, fitted head {head}. First train longer: " in note
    assert note.endswith("raise training.epochs or training.max_steps.")


@pytest.mark.parametrize(
    ("scores", "losses", "settings"),
    [
        ([0.4, 0.5], [0.9, 0.6], {}),  # level with the constant
        ([0.3, 0.4], [0.9, 0.6], {}),
        ([0.6, 0.5], [0.9, 0.6], {"better": False}),
        ([0.8], FLAT, {}),
        ([0.8], [0.69], {}),
        ([0.8, 0.8, 0.8], FLAT, {}),
        ([0.6, 0.8, 0.79, 0.8], [0.9, 0.4, 0.4, 0.4], {}),  # no longer
        ([0.7, 0.71, 0.7, 0.72], FLAT, {}),  # noise, far below the fitted head
        ([0.7, 0.85, 0.8], [0.9, 0.6, 0.3], {}),  # falling scores
        ([0.7, 0.8], [0.9, 0.6], {"failure": ALIKE}),
    ],
)
def test_a_run_that_does_not_rise_is_not_called_learning(
    scores: list[float], losses: list[float], settings: dict
) -> None:
    (note,) = finished(scores, losses, **settings)
    assert note.startswith("This run did not learn: ")


def test_a_slow_run_that_rises_is_told_to_raise_the_learning_rate() -> None:
    (note,) = finished([0.6, 0.8], FLAT, learning_rate=5e-5)
    assert note.startswith("This run still learns") and "Raise training.learning_rate from" in note


@pytest.mark.parametrize("method", ["full", "lora", "dcft"])
def test_the_hint_fits_the_method(method: str) -> None:
    rate = METHODS[method].learning_rate
    (note,) = diagnose(
        [{"loss": 0.5, "grad_norm": 1.0}, {"eval_score": 0.3}],
        0.5,
        {CONSTANT: 0.5},
        metric="score",
        greater_is_better=True,
        failure="",
        constant_loss=0.7,
        weight_change=None,
        learning_rate=rate,
        method=method,
    )
    assert f"Try training.learning_rate={3 * rate:.2g} and {rate / 3:.2g}, more epochs" in note
    assert ("adapter.kernel_size" in note) == (method == "dcft")


@pytest.mark.parametrize(
    ("score", "constant", "better", "failure", "said"),
    [
        (0.9, 0.5, True, "", ""),
        (0.5, 0.5, True, "", ""),
        (0.5, None, True, "", ""),
        (0.5, 0.5, True, ALIKE, ALIKE),
        (0.4, 0.5, True, "", "score 0.4 is worse than the constant's 0.5"),
        (0.6, 0.5, False, "", "score 0.6 is worse than the constant's 0.5"),
    ],
)
def test_the_first_evaluation(
    score: float, constant: float | None, better: bool, failure: str, said: str
) -> None:
    note = first_impression(
        score, constant, metric="score", greater_is_better=better, failure=failure
    )
    assert bool(note) == bool(said) and said in note
    assert not note or note.endswith("change training.learning_rate.")
