"""Which process runs which trial: each exactly once.

A cell is a study of Optuna, and each of its runs (one, or with a search several) a slot in it. A
process that wants to run a slot enqueues a trial for it and asks the study for a waiting trial,
which the storage gives to one process only. Of several trials with the same slot and attempt, that
with the lowest number counts; the others are closed and never run. A trial that was interrupted, or
that failed and is to be retried, gets another attempt.
"""

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dcft_cli.sweeping.owners import Watch, is_gone, this_process

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

_SLOT, _ATTEMPT, _OWNER, _SIGN, _RESULT = "slot", "attempt", "owner", "sign of life", "result"


class Status(StrEnum):
    """What became of a run."""

    TO_DO = "to do"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    DONE = "done"
    PRUNED = "pruned"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will become of it."""
        return self in (Status.DONE, Status.PRUNED, Status.FAILED)


@dataclass(frozen=True)
class Standing:
    """The trial that counts for a slot, and what became of it.

    Attributes:
        trial: None if there is none yet.
    """

    slot: int
    status: Status
    trial: "FrozenTrial | None" = None

    @property
    def attempt(self) -> int:
        """How often the run was tried before."""
        return 0 if self.trial is None else int(self.trial.user_attrs[_ATTEMPT])

    @property
    def result(self) -> dict[str, Any]:
        """What was recorded of the run: folder, score, message and more."""
        return {} if self.trial is None else self.trial.user_attrs.get(_RESULT, {})

    @property
    def owner(self) -> dict[str, Any]:
        """The process that runs or ran it."""
        return {} if self.trial is None else self.trial.user_attrs.get(_OWNER, {})


def standing(study: "Study", slot: int, watch: Watch) -> Standing:
    """Return what became of a slot so far."""
    trial = _counting(study.get_trials(deepcopy=False), slot)
    return Standing(slot, _status(study, trial, watch), trial)


def _counting(trials: "list[FrozenTrial]", slot: int) -> "FrozenTrial | None":
    """Return the trial that counts for a slot: the first one of its last attempt."""
    own = [trial for trial in trials if trial.user_attrs.get(_SLOT) == slot]
    last = max((trial.user_attrs[_ATTEMPT] for trial in own), default=0)
    own = [trial for trial in own if trial.user_attrs[_ATTEMPT] == last]
    return _first(own) if own else None


def _first(trials: "list[FrozenTrial]") -> "FrozenTrial":
    return min(trials, key=lambda trial: trial.number)


def _status(study: "Study", trial: "FrozenTrial | None", watch: Watch) -> Status:
    from optuna.trial import TrialState

    if trial is None or trial.state == TrialState.WAITING:
        return Status.TO_DO
    if trial.state == TrialState.RUNNING:
        owner = trial.user_attrs.get(_OWNER)
        sign = trial.user_attrs.get(_SIGN)
        dead = watch.is_dead(f"{study.study_name} {trial.number}", sign)
        if dead or (owner is not None and is_gone(owner)):
            return Status.INTERRUPTED
        return Status.RUNNING
    if trial.state == TrialState.FAIL:
        # A process that failed says so; whoever finds a dead one's trial only closes it.
        return Status(trial.user_attrs.get(_RESULT, {}).get("status", Status.INTERRUPTED))
    return Status.DONE if trial.state == TrialState.COMPLETE else Status.PRUNED


def claim(study: "Study", found: Standing) -> "Trial | None":
    """Claim a slot that is to do, interrupted, or failed and to be retried.

    Returns:
        A running trial of this process; None if another one has the slot.
    """
    from optuna.trial import TrialState

    if found.status != Status.TO_DO or found.trial is None:
        attempt, numbers = 0, {}
        if found.trial is not None:
            study.tell(found.trial.number, state=TrialState.FAIL, skip_if_finished=True)
            attempt, numbers = found.attempt + 1, found.trial.params
        study.enqueue_trial(numbers, user_attrs={_SLOT: found.slot, _ATTEMPT: attempt})
    trial = study.ask()
    # Numbers rise, so all trials that could count instead of this one are there by now.
    counting = _counting(study.get_trials(deepcopy=False), trial.user_attrs.get(_SLOT, -1))
    if counting is None or counting.number != trial.number:
        study.tell(trial.number, state=TrialState.FAIL)  # a duplicate
        return None
    trial.set_user_attr(_OWNER, dict(this_process()))
    return trial


def slot_of(trial: "Trial") -> int:
    """Return the slot of a claimed trial."""
    return int(trial.user_attrs[_SLOT])


def earlier_scores(study: "Study", trial: "Trial") -> dict[int, float]:
    """Return the scores by step of the attempt before a claimed trial's, if there was one."""
    attempt = trial.user_attrs[_ATTEMPT] - 1
    own = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get(_SLOT) == slot_of(trial)]
    own = [t for t in own if t.user_attrs[_ATTEMPT] == attempt]
    return dict(_first(own).intermediate_values) if own else {}


def sign_of_life(trial: "Trial", time: float) -> None:
    """Write that this process still runs a trial."""
    from optuna.exceptions import UpdateFinishedTrialError

    with suppress(UpdateFinishedTrialError):  # taken over: `finish` finds out
        trial.set_user_attr(_SIGN, time)


def finish(study: "Study", trial: "Trial", status: Status, result: dict[str, Any]) -> bool:
    """Write what became of a trial.

    Args:
        result: plain data; `score` is the trial's value if it is done.

    Returns:
        False if another process took this one for dead, and the trial over.
    """
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    states = {Status.DONE: TrialState.COMPLETE, Status.PRUNED: TrialState.PRUNED}
    try:
        trial.set_user_attr(_RESULT, {**result, "status": status.value})
    except UpdateFinishedTrialError:
        return False
    value = result["score"] if status == Status.DONE else None
    study.tell(trial.number, value, state=states.get(status, TrialState.FAIL))
    return True
