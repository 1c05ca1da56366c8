"""The interface through which a sweep reports its progress."""

from dcft_cli.sweeping.board import Run
from dcft_cli.training.reporting import Progress


class SweepView:
    """Receives events in the order they happen; ignores those that a subclass does not handle."""

    def started(self, run: Run, done: int, total: int) -> None:
        """Show that this process starts a run; `done` of `total` runs are finished."""

    def progress(self, progress: Progress) -> None:
        """Show an optimizer step of the current run."""

    def noted(self, run: Run, text: str) -> None:
        """Show a note of the current run."""

    def ended(self, run: Run, done: int, total: int) -> None:
        """Show what became of the current run."""

    def waiting(self, running: int, done: int, total: int) -> None:
        """Show that other processes have all the runs that are left."""
