"""Progress of a run: a live view on a terminal, plain lines in a pipe."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dcft_cli.console.output import err, print_note
from dcft_cli.training.reporting import Progress, Reporter, Scores

_SHOWN_EVALUATIONS = 8
_SECONDS_BETWEEN_LINES = 5


@contextmanager
def reporter(*, active: bool = True, scores: bool = True) -> Iterator[Reporter]:
    """Yield a live view if stderr is a terminal, else a reporter of plain lines.

    Args:
        active: False in all processes but the main one.
        scores: whether to show scores; False if they are the command's result, printed later.
    """
    if not active:
        yield Reporter()
        return
    if not err.is_terminal:
        yield PlainReporter() if scores else Reporter()
        return
    live = LiveReporter(scores)
    with Live(get_renderable=live.render, console=err, refresh_per_second=4):
        yield live


class PlainReporter(Reporter):
    """Prints a line every few seconds, and one per evaluation."""

    def __init__(self) -> None:
        self._next = 0.0

    def noted(self, text: str) -> None:
        """Print one line."""
        print_note(text)

    def logged(self, progress: Progress) -> None:
        """Print one line, unless the last one is recent."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
        err.print(f"step {progress.step}/{progress.total_steps}  " + "  ".join(_figures(progress)))

    def baseline(self, name: str, scores: Scores) -> None:
        """Print one line."""
        err.print(f"{name}  {_in_line(scores)}")

    def evaluated(self, step: int, scores: Scores, best: bool) -> None:
        """Print one line."""
        err.print(f"step {step}  {_in_line(scores)}{'  (best so far)' if best else ''}")


class LiveReporter(Reporter):
    """Shows a table of scores; below it a bar, loss, learning rate, speed and time left."""

    def __init__(self, with_scores: bool) -> None:
        self._with_scores = with_scores
        self._progress: Progress | None = None
        self._evaluating = ""
        self._evaluations: list[tuple[str, Scores]] = []
        self._best = -1

    def noted(self, text: str) -> None:
        """Print a line above the view."""
        print_note(text)

    def progress(self, progress: Progress) -> None:
        """Advance the bar."""
        self._progress = progress

    def logged(self, progress: Progress) -> None:
        """Show the new loss."""
        self._progress = progress

    def evaluating(self, done: int, total: int) -> None:
        """Show the progress of the evaluation."""
        self._evaluating = f"scoring {done}/{total}" if done < total else ""

    def baseline(self, name: str, scores: Scores) -> None:
        """Add a row."""
        self._evaluating = ""
        self._evaluations.append((name, scores))

    def evaluated(self, step: int, scores: Scores, best: bool) -> None:
        """Add a row."""
        self._evaluating = ""
        if best:
            self._best = len(self._evaluations)
        self._evaluations.append((str(step), scores))

    def render(self) -> RenderableType:
        """Return the current view."""
        parts: list[RenderableType] = []
        if self._evaluations and self._with_scores:
            parts.append(self._scores())
        if self._progress is not None:
            parts.append(self._bar(self._progress))
        if self._evaluating or not parts:
            parts.append(Text(self._evaluating or "starting", style="dim"))
        return Group(*parts)

    def _scores(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("step", justify="right")
        for name in self._evaluations[0][1]:
            table.add_column(name, justify="right")
        table.add_column("")
        numbered = list(enumerate(self._evaluations))
        # The best row is always shown.
        shown = numbered[-_SHOWN_EVALUATIONS:]
        if 0 <= self._best < shown[0][0]:
            shown[0] = numbered[self._best]
        for number, (step, scores) in shown:
            best = number == self._best
            values = (f"{value:.4f}" for value in scores.values())
            table.add_row(step, *values, "best" if best else "", style="green" if best else None)
        return table

    def _bar(self, progress: Progress) -> RenderableType:
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            Text(f"step {progress.step}/{progress.total_steps}", style="bold"),
            ProgressBar(total=progress.total_steps, completed=progress.step, width=40),
        )
        # On a second line: one line would exceed 80 columns.
        figures = Text("  ".join(_figures(progress)), no_wrap=True, overflow="ellipsis")
        return Group(bar, figures)


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
