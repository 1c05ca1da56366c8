"""Sweeps: lines for each run, and tables of runs, settings and trials."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.measure import Measurement
from rich.status import Status as Spinner
from rich.table import Table
from rich.text import Text

from dcft_cli.console.output import err, out, print_note
from dcft_cli.console.tables import facts
from dcft_cli.errors import listed
from dcft_cli.sweeping.board import Run
from dcft_cli.sweeping.cells import Sweep
from dcft_cli.sweeping.claims import Status
from dcft_cli.sweeping.names import number
from dcft_cli.sweeping.summary import (
    Setting,
    best_run,
    command,
    counts,
    failures,
    ranked,
    settings_of,
)
from dcft_cli.sweeping.view import SweepView
from dcft_cli.training.reporting import Progress

_MAX_TRIALS = 10
_UNLIMITED = 10_000
_COLORS = {Status.DONE: "green", Status.FAILED: "red", Status.PRUNED: "yellow"}


@contextmanager
def sweep_view(*, live: bool) -> Iterator[SweepView]:
    """Yield a view of lines, with the current run below them if stderr is a terminal.

    Args:
        live: False if other processes write to the same terminal.
    """
    if not (live and err.is_terminal):
        yield LineView()
        return
    with err.status("Starting ...", spinner_style="cyan") as spinner:
        yield LiveView(spinner)


class LineView(SweepView):
    """Prints a line for each run as it starts and as it ends, and each note once."""

    def __init__(self) -> None:
        self._notes: set[str] = set()
        self._waiting = False

    def noted(self, run: Run, text: str) -> None:
        """Print a note, unless another run had the same."""
        if text not in self._notes:
            self._notes.add(text)
            print_note(f"{run.name}: {text}")

    def started(self, run: Run, done: int, total: int) -> None:
        """Print the name of the run."""
        err.print(f"{'started':>10}  {run.name}  ({done} of {total} done)")

    def ended(self, run: Run, done: int, total: int) -> None:
        """Print what became of a run."""
        progress = f"{done} of {total}"
        style = _COLORS.get(run.status)
        err.print(Text.assemble(f"{progress:>10}  {run.name}  ", (_outcome(run), style or "")))

    def waiting(self, running: int, done: int, total: int) -> None:
        """Print once that other processes have the rest."""
        if not self._waiting:
            self._waiting = True
            print_note(f"waiting for other processes, which have the last {running} runs")


class LiveView(LineView):
    """Also shows the current run and its steps below the lines."""

    def __init__(self, spinner: Spinner) -> None:
        super().__init__()
        self._spinner = spinner
        self._current = ""

    def started(self, run: Run, done: int, total: int) -> None:
        """Show the name of the run."""
        self._current = f"{done} of {total} done, {run.name}"
        self._spinner.update(Text(self._current))

    def progress(self, progress: Progress) -> None:
        """Show the step."""
        step = f"step {progress.step}/{progress.total_steps}"
        self._spinner.update(Text(f"{self._current}, {step}"))

    def waiting(self, running: int, done: int, total: int) -> None:
        """Show what other processes have."""
        self._spinner.update(Text(f"{done} of {total} done, waiting for other processes"))


def show_cells(runs: Sequence[Run], parameters: Mapping[str, int], missing: Sequence[str]) -> None:
    """Print all cells: what differs, the parameters of the adapter, the state of the runs.

    Args:
        parameters: by name of the cell, as far as known.
        missing: models whose configuration is not at hand.
    """
    for model in missing:
        print_note(f"the configuration of {model} is not at hand: its adapters are not counted")
    keys = list(dict.fromkeys(key for run in runs for key in run.cell.differing))
    table = _cells(runs, parameters, keys)
    wide = out.options.update(width=_UNLIMITED)
    if Measurement.get(out, wide, table).maximum > out.width:
        table = _cells(runs, parameters, [])  # the names say what differs, too
    out.print(table)
    if tune := runs[0].cell.tune:
        ends = {key: (number(numbers.low), number(numbers.high)) for key, numbers in tune.items()}
        searched = ((key, f"{low} to {high}, searched for") for key, (low, high) in ends.items())
        out.print("", facts(*searched))
    total = f"{len(runs)} run{'s' * (len(runs) > 1)}"
    out.print(f"\n{total}: {_counted(runs)}. Folder: {runs[0].folder.parent}", markup=False)


def _cells(runs: Sequence[Run], parameters: Mapping[str, int], keys: Sequence[str]) -> Table:
    by_cell: dict[str, list[Run]] = {}
    for run in runs:
        by_cell.setdefault(run.cell.name, []).append(run)
    table = _table("run", *map(_column, keys))
    table.add_column("adapter", justify="right", no_wrap=True)
    table.add_column("state")
    for name, own in by_cell.items():
        cell = own[0].cell
        trained = f"{parameters[name]:,}" if name in parameters else ""
        label = name if cell.tune else own[0].name
        cells = [_shown(cell.differing.get(key, "")) for key in keys]
        state = own[0].status.value if len(own) == 1 else _counted(own)
        table.add_row(*map(Text, (label, *cells, trained, state)))
    return table


def show_results(sweep: Sweep, runs: Sequence[Run]) -> None:
    """Print settings (of a search: trials) best first, what failed, and how to train the best."""
    settings = settings_of(runs)
    err.print()
    if runs[0].cell.tune and ranked(runs):
        out.print(_trials(runs))
    if not runs[0].cell.tune or len(settings) > 1:
        out.print(_settings(settings))
    if failed := failures(runs):
        out.print()
        for message, names in failed.items():
            out.print(Text.assemble((f"{listed(names, 3)} failed: ", "red"), message))
        out.print("\nRepeat what failed: the same command with --retry-failed", markup=False)
    done = [run for run in runs if run.status == Status.DONE and run.folder.parent.is_dir()]
    if gone := [run for run in done if not run.folder.is_dir()]:
        print_note(
            f"folders that are gone from {gone[0].folder.parent}: "
            f"{listed([run.name for run in gone], 3)}. Their scores come from the sweep's storage; "
            "`dcft report` does not count them"
        )
    if best := best_run(runs):
        title = best.name if best.cell.tune else best.cell.setting
        out.print(f"\nBest: {title}\n  {command(sweep, best)}", markup=False)


def _settings(settings: Sequence[Setting]) -> Table:
    metrics = list(dict.fromkeys(setting.metric for setting in settings if setting.metric))
    table = _table("setting")
    if len(metrics) > 1:
        table.add_column("metric")
    for column in ("mean" if len(metrics) > 1 else (metrics or ["score"])[0], "std", "n", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    complete = all(run.status == Status.DONE for setting in settings for run in setting.runs)
    if not complete:
        table.add_column("runs")
    for setting in settings:
        cells = [setting.name, *([setting.metric or ""] if len(metrics) > 1 else [])]
        cells += [_score(setting.mean), _score(setting.deviation), str(len(setting.scores))]
        cells += [_time(setting.seconds), *([] if complete else [_counted(setting.runs)])]
        table.add_row(*map(Text, cells))
    return table


def _trials(runs: Sequence[Run]) -> Table:
    done = ranked(runs)
    keys = list(runs[0].cell.tune)
    table = _table("trial", *map(_column, keys))
    for column in (done[0].metric or "score", "step", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for run in done[:_MAX_TRIALS]:
        numbers = [_shown(run.numbers.get(key, "")) for key in keys]
        step = "" if run.step is None else f"{run.step:,}"
        table.add_row(*map(Text, (run.name, *numbers, _score(run.score), step, _time(run.seconds))))
    table.caption = f"{_counted(runs)}; the best {min(len(done), _MAX_TRIALS)} are shown"
    table.caption_justify = "left"
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _column(key: str) -> str:
    return key.rpartition(".")[2] or "variant"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return number(float(f"{value:.3g}"))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _outcome(run: Run) -> str:
    if run.status == Status.FAILED:
        return f"failed: {(run.message or '').splitlines()[0]}"
    score = f"{run.metric} {_score(run.score)}" if run.score is not None else ""
    if run.status == Status.PRUNED:
        return f"pruned at step {run.step}: {score}"
    return f"{score}  {_time(run.seconds)}"


def _counted(runs: Sequence[Run]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts(runs).items())


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
