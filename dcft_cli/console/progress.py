"""Progress of a run: a live view on a terminal, plain lines in a pipe."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RowProgress
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from dcft_cli.console.output import err, print_note
from dcft_cli.training.reporting import Progress, Reporter, Scores

_SECONDS_BETWEEN_LINES = 5
# Widths of the table of evaluations, in characters.
_NAME, _NUMBER = 11, 9
_BEST = "best"
_REMARK = len(f"  {_BEST} < fitted head")


@contextmanager
def reporter(*, active: bool = True, scores: bool = True) -> Iterator[Reporter]:
    """Yield a reporter of lines, with a live view below them if stderr is a terminal.

    Args:
        active: False in all processes but the main one.
        scores: whether to show scores; False if they are the command's result, printed later.
    """
    if not active:
        yield Reporter()
        return
    if err.is_terminal:
        live = LiveReporter(scores)
        with Live(get_renderable=live.render, console=err, refresh_per_second=4, transient=True):
            yield live
    else:
        yield LineReporter(scores)
    if scores:
        err.print()  # results follow


@contextmanager
def counting_rows(active: bool, *, to_file: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function that shows how many rows are done and, if it is known, of how many.

    Args:
        active: False in all processes but the main one.
        to_file: False if rows are written to stdout: nothing is shown then, since they may end
            on the same terminal, from a pager for example.
    """
    shown = active and err.is_terminal and to_file
    bar = BarColumn(style="dim", complete_style="cyan", finished_style="cyan", pulse_style="cyan")
    columns = TextColumn("{task.completed:,.0f} rows"), bar, TimeRemainingColumn()
    with RowProgress(*columns, console=err, transient=True, disable=not shown) as view:
        task = view.add_task("", total=None)
        yield lambda done, total: view.update(task, completed=done, total=total)


class LineReporter(Reporter):
    """Prints a table: a row for each evaluation, and one with the loss every few seconds."""

    def __init__(self, with_scores: bool) -> None:
        self._with_scores = with_scores
        self._next = 0.0
        self._progress: Progress | None = None
        self._columns: list[str] | None = None

    def noted(self, text: str) -> None:
        """Print one line."""
        print_note(text)

    def progress(self, progress: Progress) -> None:
        """Keep the numbers that an evaluation's row shows."""
        self._progress = progress

    def logged(self, progress: Progress) -> None:
        """Print one row, unless the last one is recent."""
        self._progress = progress
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
            self._row(f"step {progress.step}", progress, {}, "  ".join(_speed(progress)))

    def baseline(self, name: str, scores: Scores) -> None:
        """Print one row."""
        self._row(name, None, scores)

    def evaluated(self, step: int, scores: Scores, best: bool, unbeaten: str) -> None:
        """Print one row."""
        remark = f"{_BEST} {unbeaten}".rstrip() if best else ""
        self._row(f"step {step}", self._progress, scores, remark)

    def _row(self, name: str, progress: Progress | None, scores: Scores, remark: str = "") -> None:
        """Print scores below their names; those beyond the width are left to log.jsonl."""
        if not self._with_scores:
            return
        if self._columns is None or (scores and not self._columns):
            self._columns = []
            left = err.width - _NAME - 2 * _NUMBER - _REMARK
            for column in scores:
                left -= max(len(column), _NUMBER - 2) + 2
                if self._columns and left < 0:
                    break
                self._columns.append(column)
            names = ["epoch", "loss", *self._columns]
            header = "".join(f"{n:>{max(len(n) + 2, _NUMBER)}}" for n in names)
            err.print(f"{'':{_NAME}}{header}", style="bold")
        epoch = "" if progress is None else f"{progress.epoch:.2f}"
        loss = "" if progress is None or progress.loss is None else _decimals(progress.loss)
        cells = [f"{epoch:>{_NUMBER}}", f"{loss:>{_NUMBER}}"]
        for column in self._columns:
            value = _decimals(scores[column]) if column in scores else ""
            cells.append(f"{value:>{max(len(column) + 2, _NUMBER)}}")
        line = f"{name:{_NAME}}{''.join(cells)}  {remark}".rstrip()
        err.print(line, style="green" if remark == _BEST else None)


class LiveReporter(LineReporter):
    """Shows a bar, loss, learning rate, speed and time left below the rows of evaluations."""

    def __init__(self, with_scores: bool) -> None:
        super().__init__(with_scores)
        self._evaluating = ""
        self._starting = Spinner("dots", style="cyan")

    def logged(self, progress: Progress) -> None:
        """Show the new loss."""
        self._progress = progress

    def evaluating(self, done: int, total: int) -> None:
        """Show the progress of the evaluation."""
        self._evaluating = f"Scoring {done}/{total}" if done < total else ""

    def render(self) -> RenderableType:
        """Return the current view."""
        if self._progress is None:
            self._starting.update(text=f"{self._evaluating or 'Starting'} ...")
            return self._starting
        step, total = self._progress.step, self._progress.total_steps
        bar = Table.grid(padding=(0, 2), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_row(
            Text(f"step {step}/{total}", style="bold"),
            ProgressBar(total, step, style="dim", complete_style="cyan", finished_style="cyan"),
        )
        # On a second line: one line would exceed 80 columns.
        figures = [f"epoch {self._progress.epoch:.2f}", *_speed(self._progress), self._evaluating]
        if self._progress.loss is not None:
            figures.insert(1, f"loss {_decimals(self._progress.loss)}")
        return Group(bar, Text("  ".join(figures), no_wrap=True, overflow="ellipsis"))


def _decimals(value: float) -> str:
    """Return a number in fewer characters than a column of the table has."""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.2e}"


def _speed(progress: Progress) -> list[str]:
    """Return learning rate, speed and time left, as far as known."""
    figures = []
    if progress.learning_rate is not None:
        figures.append(f"lr {progress.learning_rate:.1e}")
    if progress.tokens_per_second is not None:
        figures.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.seconds_left is not None:
        figures.append(f"{timedelta(seconds=round(progress.seconds_left))} left")
    return figures
