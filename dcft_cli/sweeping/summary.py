"""What came out of a sweep: scores by setting over seeds, and the best numbers of a search."""

import shlex
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dcft_cli.sweeping.arguments import assignments
from dcft_cli.sweeping.board import Run
from dcft_cli.sweeping.cells import Sweep
from dcft_cli.sweeping.claims import Status


@dataclass(frozen=True)
class Setting:
    """The runs that differ only in their seed or, with a search, in the numbers searched for.

    Attributes:
        name: what the runs have in common.
        runs: all of them, in the sweep's order.
    """

    name: str
    runs: Sequence[Run]

    @cached_property
    def best_runs(self) -> list[Run]:
        """The finished run of each cell, or the best trial of its search."""
        best: dict[str, Run] = {}
        for run in sorted(filter(_is_done, self.runs), key=_rank):
            best.setdefault(run.cell.name, run)
        return list(best.values())

    @property
    def metric(self) -> str | None:
        """The main metric; None before the first run is finished."""
        return self.best_runs[0].metric if self.best_runs else None

    @property
    def scores(self) -> list[float]:
        """Score of each cell that has one."""
        return [run.score for run in self.best_runs if run.score is not None]

    @property
    def mean(self) -> float | None:
        """Mean of the scores."""
        return statistics.mean(self.scores) if self.scores else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the scores (of a sample); None for fewer than two."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def seconds(self) -> float | None:
        """Mean time of a finished run."""
        known = [run.seconds for run in self.runs if _is_done(run) and run.seconds is not None]
        return statistics.mean(known) if known else None

    def to_json(self) -> dict[str, Any]:
        """Return the setting as plain data."""
        return {
            "setting": self.name,
            "metric": self.metric,
            "mean": self.mean,
            "standard_deviation": self.deviation,
            "n": len(self.scores),
            "seconds": self.seconds,
            "runs": counts(self.runs),
        }


def settings_of(runs: Iterable[Run]) -> list[Setting]:
    """Return the settings: those with most scores first, and of these the best mean.

    Otherwise a setting that fails with most seeds could win by the others.
    """
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.cell.setting, []).append(run)
    found = [Setting(name, own) for name, own in by_name.items()]
    return sorted(found, key=_setting_rank)


def ranked(runs: Iterable[Run]) -> list[Run]:
    """Return the finished runs, the best first."""
    return sorted(filter(_is_done, runs), key=_rank)


def best_run(runs: Iterable[Run]) -> Run | None:
    """Return the best trial of a search, or the first run of the best setting.

    None if no run is finished, or if the runs have different metrics.
    """
    done = ranked(runs)
    if len({run.metric for run in done}) != 1:
        return None
    if done[0].cell.tune:
        return done[0]
    return min(settings_of(done)[0].runs, key=lambda run: run.cell.recipe.training.seed)


def failures(runs: Iterable[Run]) -> dict[str, list[str]]:
    """Return the names of the runs that failed, by message."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if run.status == Status.FAILED:
            found.setdefault(run.message or "", []).append(run.name)
    return found


def counts(runs: Iterable[Run]) -> dict[str, int]:
    """Count runs by what became of them."""
    found = Counter(run.status.value for run in runs)
    return {status.value: found[status.value] for status in Status if found[status.value]}


def command(sweep: Sweep, run: Run) -> str:
    """Return the command that trains a run again, for a shell."""
    numbers = assignments(run.numbers)
    arguments = [sweep.source, *sweep.overrides, *run.cell.overrides, *numbers]
    return f"dcft train {shlex.join(arguments)}"


def to_json(sweep: Sweep, runs: Sequence[Run]) -> dict[str, Any]:
    """Return a sweep as plain data: all runs, the settings best first, and the best one."""
    best: Mapping[str, Any] | None = None
    if found := best_run(runs):
        best = {"name": found.name, "score": found.score, "command": command(sweep, found)}
    return {
        "recipe": sweep.source,
        "counts": counts(runs),
        "runs": [run.to_json() for run in runs],
        "settings": [setting.to_json() for setting in settings_of(runs)],
        "best": best,
    }


def _is_done(run: Run) -> bool:
    return run.status == Status.DONE


def _rank(run: Run) -> tuple[str, float]:
    assert run.score is not None and run.metric is not None
    return run.metric, -run.score if run.greater_is_better else run.score


def _setting_rank(setting: Setting) -> tuple[bool, str, int, float]:
    if setting.mean is None:
        return True, "", 0, 0.0
    better_when_higher = setting.best_runs[0].greater_is_better
    mean = -setting.mean if better_when_higher else setting.mean
    return False, setting.metric or "", -len(setting.scores), mean
