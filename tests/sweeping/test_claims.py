"""Who runs what, in both kinds of storage: one process for each run."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from dcft_cli.sweeping import claims, owners
from dcft_cli.sweeping.claims import Status, claim, earlier_scores, finish, slot_of, standing
from dcft_cli.sweeping.owners import Watch
from dcft_cli.sweeping.storage import open_storage, require_optuna

Open = Callable[[], optuna.Study]


def study_in(folder: Path, url: str | None) -> optuna.Study:
    require_optuna()
    return optuna.create_study(
        storage=open_storage(url, folder),
        study_name="cell",
        direction="maximize",
        load_if_exists=True,
    )


@pytest.fixture(params=["journal", "sqlite"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str | None]:
    return tmp_path, f"sqlite:///{tmp_path}/sweep.db" if request.param == "sqlite" else None


@pytest.fixture
def study(where: tuple[Path, str | None]) -> optuna.Study:
    return study_in(*where)


def status(study: optuna.Study, slot: int = 0, watch: Watch | None = None) -> Status:
    return standing(study, slot, watch or Watch()).status


def claimed(study: optuna.Study, slot: int = 0) -> optuna.Trial:
    trial = claim(study, standing(study, slot, Watch()))
    assert trial is not None
    return trial


def test_from_claim_to_result(study: optuna.Study) -> None:
    assert status(study) == Status.TO_DO
    trial = claimed(study)
    assert slot_of(trial) == 0
    assert status(study) == Status.RUNNING
    assert finish(study, trial, Status.DONE, {"score": 0.5, "folder": "here"})
    found = standing(study, 0, Watch())
    assert (found.status, found.attempt) == (Status.DONE, 0)
    assert found.result == {"score": 0.5, "folder": "here", "status": "done"}
    assert study.best_value == 0.5
    assert status(study, slot=1) == Status.TO_DO


def test_of_two_trials_for_a_slot_the_first_counts(study: optuna.Study) -> None:
    before = standing(study, 0, Watch())
    first, second = claim(study, before), claim(study, before)  # both saw that it is to do
    assert first is not None and second is None
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.RUNNING, TrialState.FAIL]
    finish(study, first, Status.DONE, {"score": 1.0})
    assert status(study) == Status.DONE


def test_waiting_duplicates_are_closed_and_never_run(study: optuna.Study) -> None:
    for _ in range(3):
        study.enqueue_trial({}, user_attrs={"slot": 0, "attempt": 0})
    before = standing(study, 0, Watch())
    assert before.status == Status.TO_DO
    assert claimed(study).number == 0
    assert claim(study, before) is None
    assert claim(study, before) is None
    assert claim(study, before) is None, "and no trial that nobody enqueued"
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.RUNNING, *[TrialState.FAIL] * 3]


def test_what_was_interrupted_gets_another_attempt(study: optuna.Study) -> None:
    trial = claimed(study)
    rate = trial.suggest_float("rate", 0.0, 1.0)
    trial.report(0.25, 10)
    finish(study, trial, Status.INTERRUPTED, {})
    assert status(study) == Status.INTERRUPTED
    again = claimed(study)
    assert standing(study, 0, Watch()).attempt == 1
    assert again.suggest_float("rate", 0.0, 1.0) == rate, "the same numbers"
    assert earlier_scores(study, again) == {10: 0.25}
    assert earlier_scores(study, claimed(study, 1)) == {}


def test_failures_stay_until_they_are_retried(study: optuna.Study) -> None:
    finish(study, claimed(study), Status.FAILED, {"message": "why"})
    found = standing(study, 0, Watch())
    assert (found.status, found.result["message"]) == (Status.FAILED, "why")
    finish(study, claimed(study), Status.DONE, {"score": 1.0})
    assert status(study) == Status.DONE


def test_a_dead_process_is_taken_over(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = claimed(study)
    monkeypatch.setattr(claims, "is_gone", lambda owner: True)
    assert status(study) == Status.INTERRUPTED
    monkeypatch.undo()
    monkeypatch.setattr(owners, "DEAD_AFTER_SECONDS", -1.0)
    watch = Watch()
    assert status(study, watch=watch) == Status.RUNNING
    assert status(study, watch=watch) == Status.INTERRUPTED
    claims.sign_of_life(trial, 1.0)
    assert status(study, watch=watch) == Status.RUNNING
    found = standing(study, 0, watch)
    assert found.status == Status.INTERRUPTED
    monkeypatch.undo()
    assert claim(study, found) is not None
    assert not finish(study, trial, Status.DONE, {"score": 1.0}), "it was not dead, but late"
    claims.sign_of_life(trial, 2.0)
    assert status(study) == Status.RUNNING


def _claims(folder: Path, url: str | None, slots: int) -> list[int]:
    """Claim and finish every slot that is free; return those that were run."""
    study, won = study_in(folder, url), []
    for slot in range(slots):
        found = standing(study, slot, Watch())
        if found.status == Status.TO_DO and (trial := claim(study, found)) is not None:
            won.append(slot_of(trial))
            finish(study, trial, Status.DONE, {"score": 0.0})
    return won


def test_processes_that_race_run_each_slot_once(where: tuple[Path, Any]) -> None:
    slots, processes = 12, 3
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        results = [pool.submit(_claims, *where, slots) for _ in range(processes)]
        won = [slot for result in results for slot in result.result()]
    assert sorted(won) == list(range(slots))
    complete = study_in(*where).get_trials(states=[TrialState.COMPLETE])
    assert sorted(trial.user_attrs["slot"] for trial in complete) == list(range(slots))
