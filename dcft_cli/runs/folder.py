"""The folder of a run, and the adapter file in it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dcft_cli.adapter_file.hub import is_hub_address, locate
from dcft_cli.adapter_file.read import ADAPTER_FILE
from dcft_cli.addresses import local_path
from dcft_cli.atomic import atomic_path, remove_leftovers
from dcft_cli.errors import RunError
from dcft_cli.outputs import check_folder
from dcft_cli.processes import process_rank
from dcft_cli.runs.lock import exclusive
from dcft_cli.training.checkpoints import last_checkpoint


class RunFolder:
    """The files that a run writes; docs/recipes.md says what is in each.

    Attributes:
        is_open: whether this process has begun to write a run there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_open = False
        self.adapter = path / ADAPTER_FILE
        self.recipe = path / "recipe.yaml"
        self.metrics = path / "metrics.json"
        self.log = path / "log.jsonl"
        self.holdout = path / "holdout.jsonl"
        self.checkpoints = path / "checkpoints"
        # The adapter last: see `make_room`.
        self._files = (self.log, self.holdout, self.metrics, self.recipe, self.adapter)

    @property
    def previous(self) -> "RunFolder":
        """The finished run that this one replaces, until this one has an adapter."""
        return RunFolder(self.path / ".previous")

    @contextmanager
    def lock(self) -> Iterator[str]:
        """Context in which no other process may train into this folder; see `exclusive`.

        Of several processes of one run (torchrun), the first holds the lock for all.

        Raises:
            RunError: another process trains there.
            UserError: the folder is not writable.
        """
        check_folder(self.path)
        if process_rank() != 0:
            yield ""
            return
        with exclusive(self.path, self.path / ".lock") as note:
            yield note

    def last_checkpoint(self) -> Path | None:
        """Return the checkpoint to resume from."""
        return last_checkpoint(self.checkpoints)

    def has_run(self) -> bool:
        """Return whether there are files of a run, finished or not, or of the one before it."""
        own = (*self._files, self.checkpoints, self.previous.adapter)
        return any(path.exists() for path in own)

    def truncate_log(self, step: int) -> None:
        """Remove log lines of later steps, which a resumed run takes again."""
        if self.log.exists():
            kept = [json.dumps(line) + "\n" for line in self.log_lines() if line["step"] <= step]
            with atomic_path(self.log) as path:  # other processes read it
                path.write_text("".join(kept), encoding="utf-8")

    def baselines(self) -> dict[str, dict[str, float]]:
        """Return the scores reached without training, by baseline, from the log."""
        lines = self.log_lines()
        return {line["baseline"]: line["scores"] for line in lines if "baseline" in line}

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log, whose lines are losses, scores and baselines; empty without a file.

        Raises:
            RunError: a line is not one that a run wrote.
        """
        if not self.log.is_file():
            return []
        lines = self.log.read_bytes().splitlines(keepends=True)
        # A killed run may leave an incomplete last line.
        return [
            self._log_line(number, line)
            for number, line in enumerate(lines, 1)
            if line.endswith(b"\n")
        ]

    def _log_line(self, number: int, text: bytes) -> dict[str, Any]:
        try:
            line = json.loads(text)
            line["step"] + 0
        except (ValueError, TypeError, LookupError, RecursionError):
            raise RunError(
                f"{self.log}, line {number}, is damaged.", "Delete this line, and try again."
            ) from None
        return dict(line)

    def make_room(self) -> bool:
        """Remove an unfinished run; move a finished one to `previous`, and return True.

        If this is interrupted, the next call completes it.
        """
        if not self.adapter.exists():
            self.clear()
            return self.previous.adapter.exists()
        if self.previous.adapter.exists():  # this run was finished after it
            self.drop_previous()
        self.previous.path.mkdir(exist_ok=True)
        # Checkpoints first: a folder of another user cannot be moved, and all stays as it was.
        for path in (self.checkpoints, *self._files):
            kept = self.previous.path / path.name
            if path.exists() and kept.is_dir():  # of a run whose removal was interrupted
                shutil.rmtree(kept)
            if path.exists():
                path.replace(kept)
        return True

    def remove_leftovers(self) -> None:
        """Remove what killed processes left of files of this run."""
        for path in self._files:
            remove_leftovers(path)

    def drop_previous(self) -> None:
        """Remove the run that this one has replaced."""
        if self.previous.path.exists():
            shutil.rmtree(self.previous.path)

    def clear(self) -> None:
        """Remove the files of an earlier run, and no others."""
        for pattern in ("checkpoint-*", ".checkpoint-*.part"):
            for path in self.checkpoints.glob(pattern):
                shutil.rmtree(path)
        for path in self._files:
            path.unlink(missing_ok=True)


def recipe_beside(adapter: Path) -> Path | None:
    """Return the recipe of the run that an adapter file or a checkpoint's lies in, if any."""
    folder = adapter.absolute().parent
    if folder.parent.name == "checkpoints":
        folder = folder.parents[1]
    recipe = RunFolder(folder).recipe
    return recipe if recipe.is_file() else None


def adapter_file(source: str | Path) -> Path:
    """Return the adapter file of a run or checkpoint folder or an address, or the file itself.

    Args:
        source: a path, or a `package://` or `hub://` address.

    Raises:
        RunError: there is none.
        AdapterFileError: there is none on the Hub, or it cannot be reached.
    """
    if is_hub_address(source):
        return locate(source)
    path = local_path(str(source))
    if path.suffix in (".yaml", ".yml"):
        raise RunError(f"{path} is a recipe, not an adapter.", "Train it first: dcft train.")
    if path.is_dir():
        if (path / ADAPTER_FILE).is_file():
            return path / ADAPTER_FILE
        run = RunFolder(path)
        hint = "Name the folder of a finished run, or an adapter file."
        if run.last_checkpoint():
            hint = "The run did not finish: resume it, or use a folder in its checkpoints/."
        if run.previous.adapter.is_file():
            hint += f" The run before it is kept in {run.previous.path}."
        raise RunError(f"{path} has no {ADAPTER_FILE}.", hint)
    if not path.exists():
        raise RunError(f"{path} does not exist.", "Name a run folder or an adapter file.")
    return path


def has_adapter(source: str) -> bool:
    """Return whether a path is an adapter file, or a folder with one."""
    path = Path(source).expanduser()
    return (path / ADAPTER_FILE).is_file() or (path.is_file() and path.suffix == ".safetensors")
