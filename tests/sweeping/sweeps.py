"""Sweeps of a tiny model, in this process."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcft_cli.recipe import dump_recipe, load_recipe
from dcft_cli.sweeping.arguments import with_arguments
from dcft_cli.sweeping.board import Board, Run, open_board
from dcft_cli.sweeping.cells import Sweep, plan_sweep
from dcft_cli.sweeping.storage import require_optuna
from dcft_cli.sweeping.view import SweepView
from dcft_cli.sweeping.worker import Worker
from tests.jobs import overrides


def write_recipe(folder: Path, base: Path, task: str = "sst2", *more: str) -> Path:
    """Write a recipe that trains a few quick steps, with its data; return its path."""
    quick = ("training.max_steps=4", "training.eval_steps=2", *more)
    recipe = load_recipe(
        f"recipes/{task}.yaml", [*overrides(task, folder, base), *quick, "training.seed=1"]
    ).recipe
    path = folder / "tiny.yaml"
    path.write_text(dump_recipe(recipe), "utf-8")
    return path


@dataclass
class Seen(SweepView):
    """A view that records what it is told, and presses Ctrl-C at a step of the first run."""

    stop_at: int | None = None
    runs: list[Run] = field(default_factory=list)
    progresses: list[tuple[int, int]] = field(default_factory=list)

    def progress(self, progress: Any) -> None:
        if progress.step == self.stop_at:
            raise KeyboardInterrupt

    def ended(self, run: Run, done: int, total: int) -> None:
        self.runs.append(run)
        self.progresses.append((done, total))


def planned(recipe: Path, overrides: Sequence[str] = (), **arguments: Any) -> Sweep:
    """Plan a sweep as the command does."""
    section = with_arguments(load_recipe(str(recipe), overrides).recipe.sweep, **arguments)
    return plan_sweep(str(recipe), overrides, section)


def board_of(sweep: Sweep, output: Path, url: str | None = None) -> Board:
    require_optuna()
    return open_board(sweep, url, output, dry_run=False)


def work(
    sweep: Sweep,
    output: Path,
    *,
    url: str | None = None,
    stop_at: int | None = None,
    retry_failed: bool = False,
) -> tuple[Board, Seen]:
    """Run a sweep; return it as it stands, and what was seen."""
    board, seen = board_of(sweep, output, url), Seen(stop_at)
    Worker(board, seen, retry_failed=retry_failed).work()
    return board, seen
