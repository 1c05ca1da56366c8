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
    """Prints a line for each evaluation, and one every few seconds."""

    def __init__(self, with_scores: bool) -> None:
        self._with_scores = with_scores
        self._next = 0.0

    def noted(self, text: str) -> None:
        """Print one line."""
        print_note(text)

    def logged(self, progress: Progress) -> None:
        """Print one line, unless the last one is recent."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
            step = f"step {progress.step}/{progress.total_steps}"
            err.print("  ".join([step, *_figures(progress)]))

    def baseline(self, name: str, scores: Scores) -> None:
        """Print one line."""
        if self._with_scores:
            err.print(f"{name}  {_in_line(scores)}")

    def evaluated(self, step: int, scores: Scores, best: bool) -> None:
        """Print one line."""
        if self._with_scores:
            mark = "  (best so far)" if best else ""
            err.print(f"step {step}  {_in_line(scores)}{mark}", style="green" if best else None)


class LiveReporter(LineReporter):
    """Shows a bar, loss, learning rate, speed and time left below the lines of evaluations."""

    def __init__(self, with_scores: bool) -> None:
        super().__init__(with_scores)
        self._progress: Progress | None = None
        self._evaluating = ""

    def progress(self, progress: Progress) -> None:
        """Advance the bar."""
        self._progress = progress

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
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            Text(f"step {self._progress.step}/{self._progress.total_steps}", style="bold"),
            ProgressBar(self._progress.total_steps, self._progress.step, width=40),
        )
        # On a second line: one line would exceed 80 columns.
        figures = [*_figures(self._progress), self._evaluating]
        return Group(bar, Text("  ".join(figures), no_wrap=True, overflow="ellipsis"))


def _in_line(scores: Scores) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in scores.items())


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
