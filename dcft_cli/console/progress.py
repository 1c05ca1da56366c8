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
from rich.table import Table
from rich.text import Text

from dcft_cli.console.output import err, out, print_note
from dcft_cli.training.reporting import Progress, Reporter, Scores

_SECONDS_BETWEEN_LINES = 5
# Widths of the table of evaluations, in characters.
_NAME, _NUMBER = 11, 9
_BEST = "  best"


@contextmanager
def reporter(*, active: bool = True, scores: bool = True) -> Iterator[Reporter]:
    """Yield a reporter of lines, with a live view below them if stderr is a terminal.

    Args:
        active: False in all processes but the main one.
        scores: whether to show scores; False if they are the command's result, printed later.
    """
    if not active:
        yield Reporter()
    elif not err.is_terminal:
        yield LineReporter(scores)
    else:
        live = LiveReporter(scores)
        with Live(get_renderable=live.render, console=err, refresh_per_second=4):
            yield live


@contextmanager
def counting_rows(active: bool, *, to_file: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function that shows how many rows are done and, if it is known, of how many.

    Args:
        active: False in all processes but the main one.
        to_file: False if rows are written to stdout: on a terminal, nothing is shown then.
    """
    shown = active and err.is_terminal and (to_file or not out.is_terminal)
    columns = TextColumn("{task.completed:,.0f} rows"), BarColumn(), TimeRemainingColumn()
    with RowProgress(*columns, console=err, transient=True, disable=not shown) as view:
        task = view.add_task("", total=None)
        yield lambda done, total: view.update(task, completed=done, total=total)


class LineReporter(Reporter):
    """Prints a row of a table for each evaluation, and a line every few seconds."""

    def __init__(self, with_scores: bool) -> None:
        self._with_scores = with_scores
        self._next = 0.0
        self._progress: Progress | None = None
        self._columns: list[str] = []

    def noted(self, text: str) -> None:
        """Print one line."""
        print_note(text)

    def progress(self, progress: Progress) -> None:
        """Keep the numbers that an evaluation's row shows."""
        self._progress = progress

    def logged(self, progress: Progress) -> None:
        """Print one line, unless the last one is recent."""
        self._progress = progress
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
            step = f"step {progress.step}/{progress.total_steps}"
            err.print("  ".join([step, *_figures(progress)]))

    def baseline(self, name: str, scores: Scores) -> None:
        """Print one row."""
        self._row(name, None, scores)

    def evaluated(self, step: int, scores: Scores, best: bool) -> None:
        """Print one row."""
        self._row(f"step {step}", self._progress, scores, best=best)

    def _row(
        self, name: str, progress: Progress | None, scores: Scores, *, best: bool = False
    ) -> None:
        """Print scores below their names; those beyond the width are left to log.jsonl."""
        if not self._with_scores:
            return
        if not self._columns:
            left = err.width - _NAME - 2 * _NUMBER - len(_BEST)
            for column in scores:
                left -= max(len(column), _NUMBER - 2) + 2
                if self._columns and left < 0:
                    break
                self._columns.append(column)
            names = ["epoch", "loss", *self._columns]
            header = "".join(f"{n:>{max(len(n) + 2, _NUMBER)}}" for n in names)
            err.print(f"{'':{_NAME}}{header}", style="bold")
        epoch = "" if progress is None else f"{progress.epoch:.2f}"
        loss = "" if progress is None or progress.loss is None else f"{progress.loss:.4f}"
        cells = [f"{epoch:>{_NUMBER}}", f"{loss:>{_NUMBER}}"]
        for column in self._columns:
            value = f"{scores[column]:.4f}" if column in scores else ""
            cells.append(f"{value:>{max(len(column) + 2, _NUMBER)}}")
        err.print(f"{name:{_NAME}}{''.join(cells)}{_BEST * best}", style="green" if best else None)


class LiveReporter(LineReporter):
    """Shows a bar, loss, learning rate, speed and time left below the rows of evaluations."""

    def __init__(self, with_scores: bool) -> None:
        super().__init__(with_scores)
        self._evaluating = ""

    def logged(self, progress: Progress) -> None:
        """Show the new loss."""
        self._progress = progress

    def evaluating(self, done: int, total: int) -> None:
        """Show the progress of the evaluation."""
        self._evaluating = f"scoring {done}/{total}" if done < total else ""

    def render(self) -> RenderableType:
        """Return the current view."""
        if self._progress is None:
            return Text(self._evaluating or "starting", style="dim")
        step, total = self._progress.step, self._progress.total_steps
        bar = Table.grid(padding=(0, 2), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_row(
            Text(f"step {step}/{total}", style="bold"),
            ProgressBar(total, step, style="dim", complete_style="cyan", finished_style="cyan"),
        )
        # On a second line: one line would exceed 80 columns.
        figures = [*_figures(self._progress), self._evaluating]
        return Group(bar, Text("  ".join(figures), no_wrap=True, overflow="ellipsis"))


def _figures(progress: Progress) -> list[str]:
    """Return loss, learning rate, speed and time left, as far as known."""
    figures = [f"epoch {progress.epoch:.2f}"]
    if progress.loss is not None and progress.learning_rate is not None:
        figures += [f"loss {progress.loss:.4f}", f"lr {progress.learning_rate:.1e}"]
    if progress.tokens_per_second is not None:
        figures.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.seconds_left is not None:
        figures.append(f"{timedelta(seconds=round(progress.seconds_left))} left")
    return figures
