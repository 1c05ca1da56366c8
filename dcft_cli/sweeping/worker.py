"""The loop of a process that works on a sweep: claim a run, train it, write what became of it."""

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dcft_cli.failures import explained
from dcft_cli.sweeping.board import Board, Run
from dcft_cli.sweeping.cells import Cell
from dcft_cli.sweeping.claims import (
    Standing,
    Status,
    claim,
    earlier_scores,
    finish,
    sign_of_life,
    slot_of,
)
from dcft_cli.sweeping.folders import last_event, record
from dcft_cli.sweeping.owners import heartbeat
from dcft_cli.sweeping.training import RunReporter, suggest, train_run
from dcft_cli.sweeping.view import SweepView
from dcft_cli.training.machine import free_memory

if TYPE_CHECKING:
    from optuna import Study, Trial

_POLL_SECONDS = 1.0


class Worker:
    """Works on a sweep until every run is finished, by this process or by another.

    Args:
        retry_failed: whether to repeat the runs that have failed so far.
    """

    def __init__(self, board: Board, view: SweepView, *, retry_failed: bool = False) -> None:
        self._board = board
        self._view = view
        self._open = board.slots
        self._total = len(self._open)
        self._to_retry: set[tuple[str, int, int]] = set()
        if retry_failed:
            found = [(cell, board.standing(cell, slot)) for cell, slot in self._open]
            failed = [(cell, own) for cell, own in found if own.status == Status.FAILED]
            self._to_retry = {(cell.name, own.slot, own.attempt) for cell, own in failed}

    def work(self) -> None:
        """Train what is left to do.

        Raises:
            KeyboardInterrupt: the user stops; the current run is marked as interrupted.
        """
        while found := self._unfinished():
            free = [(cell, own) for cell, own in found if own.status != Status.RUNNING]
            if not any(self._try(cell, own) for cell, own in free):
                self._view.waiting(len(found), self._done, self._total)
                time.sleep(_POLL_SECONDS)

    @property
    def _done(self) -> int:
        return self._total - len(self._open)

    def _unfinished(self) -> list[tuple[Cell, Standing]]:
        """Return the runs that are not finished, as they stand."""
        found = [(cell, self._board.standing(cell, slot)) for cell, slot in self._open]
        found = [
            (cell, own)
            for cell, own in found
            if not own.status.is_final or (cell.name, own.slot, own.attempt) in self._to_retry
        ]
        self._open = [(cell, own.slot) for cell, own in found]
        return found

    def _try(self, cell: Cell, found: Standing) -> bool:
        """Claim a run and train it; return False if another process has it."""
        study = self._board.study(cell)
        study.sampler = self._board.sampler(cell, found.slot)
        if self._board.standing(cell, found.slot) != found:  # another process was faster
            return False
        trial = claim(study, found)
        if trial is None:
            return False
        slot = slot_of(trial)
        folder = self._board.folder(cell, slot, create=True)
        run = Run(cell, slot, folder, Status.RUNNING, suggest(trial, cell.tune))
        self._view.started(run, self._done, self._total)
        try:
            run = self._train(run, study, trial)
        finally:
            free_memory()
        if run.status == Status.INTERRUPTED:
            raise KeyboardInterrupt
        self._unfinished()
        self._view.ended(run, self._done, self._total)
        return True

    def _train(self, run: Run, study: "Study", trial: "Trial") -> Run:
        """Train a run, write what became of it, and return it with that."""
        from optuna import TrialPruned

        result: dict[str, Any] = {}
        searched = trial if run.cell.tune else None
        reporter = RunReporter(run, self._view, searched, earlier_scores(study, trial))
        # A run that failed starts over; one that was interrupted goes on.
        resume = last_event(run.folder) != Status.FAILED
        record(run.folder, "started")
        try:
            with heartbeat(partial(sign_of_life, trial)):
                loaded = self._board.sweep.loaded(run.cell.recipe_with(run.numbers))
                result = train_run(loaded, run.folder, reporter, resume=resume)
            status = Status.DONE
        except TrialPruned:
            status = Status.PRUNED
            result = reporter.last_result
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        except Exception as error:  # of any library: the sweep goes on with the next run
            status = Status.FAILED
            result = {"message": str(explained(error, "sweep"))}
        record(run.folder, status, **result)
        if not finish(study, trial, status, {**result, "folder": str(run.folder.absolute())}):
            status, result = Status.FAILED, {"message": "another process took this run over"}
        return replace(run, status=status, **result)
