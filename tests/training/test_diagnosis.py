"""Notes on runs that do not learn."""

import math

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
) -> list[str]:
    return diagnose(
        [{"loss": loss, "grad_norm": grad_norm}, {"eval_score": 0.3}],
        best,
        {CONSTANT: constant} if fitted is None else {CONSTANT: constant, FITTED_HEAD: fitted},
        metric="score",
        greater_is_better=better,
        failure=failure,
        constant_loss=0.7,
        weight_change=change,
        learning_rate=5e-3,
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
    ],
)
def test_a_note_names_the_problem_and_the_setting_to_change(
    best: float | None, change: float, settings: dict, said: str, setting: str
) -> None:
    (note,) = notes(best, change, **settings)
    assert said in note and setting in note


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
