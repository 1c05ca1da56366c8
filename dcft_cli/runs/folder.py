"""The folder of a run, and the adapter file in it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from dcft_cli.adapter_file.read import ADAPTER_FILE
from dcft_cli.addresses import local_path
from dcft_cli.atomic import atomic_path
from dcft_cli.errors import RunError


class RunFolder:
    """The files that a run writes; docs/recipes.md says what is in each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.adapter = path / ADAPTER_FILE
        self.recipe = path / "recipe.yaml"
        self.metrics = path / "metrics.json"
        self.log = path / "log.jsonl"
        self.holdout = path / "holdout.jsonl"
        self.checkpoints = path / "checkpoints"
        self._files = (self.adapter, self.recipe, self.metrics, self.log, self.holdout)

    def last_checkpoint(self) -> Path | None:
        """Return the checkpoint to resume from."""
        # A run that is stopped while saving leaves a checkpoint without this file, the last one.
        found = [p.parent for p in self.checkpoints.glob("checkpoint-[0-9]*/trainer_state.json")]
        return max(found, key=step_of, default=None)

    def check_free(self, *, overwrite: bool, resume: bool) -> None:
        """Check that no earlier run would be lost and, with `resume`, that there is one.

        Raises:
            RunError: the folder has a run already, is not writable, or has nothing to resume.
        """
        existing = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not (existing.is_dir() and os.access(existing, os.W_OK)):
            problem = "is not writable" if existing.is_dir() else "is a file"
            raise RunError(
                f"{existing} {problem}; {self.path} cannot be the run folder.",
                "Choose another --output.",
            )
        if resume:
            if self.last_checkpoint() is None:
                raise RunError(
                    f"{self.path} has no checkpoint to resume from.",
                    "Start over without --resume (with --overwrite if the folder is not empty).",
                )
        elif not overwrite and any(p.exists() for p in (*self._files, self.checkpoints)):
            raise RunError(
                f"{self.path} contains a run already.",
                "Choose another --output, --overwrite to replace it, or --resume to continue it.",
            )

    def truncate_log(self, step: int) -> None:
        """Remove log lines of later steps, which a resumed run takes again."""
        if self.log.exists():
            kept = [json.dumps(line) + "\n" for line in self._log_lines() if line["step"] <= step]
            with atomic_path(self.log) as path:  # other processes read it
                path.write_text("".join(kept), encoding="utf-8")

    def baselines(self) -> dict[str, dict[str, float]]:
        """Return the scores reached without training, by baseline, from the log."""
        lines = self._log_lines() if self.log.exists() else []
        return {line["baseline"]: line["scores"] for line in lines if "baseline" in line}

    def _log_lines(self) -> list[dict[str, Any]]:
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        # A killed run may leave an incomplete last line.
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def clear(self) -> None:
        """Remove the files of an earlier run, and no others."""
        for path in self._files:
            path.unlink(missing_ok=True)
        for path in self.checkpoints.glob("checkpoint-*"):
            shutil.rmtree(path)


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step in a checkpoint folder's name."""
    return int(checkpoint.name.rpartition("-")[2])


def adapter_file(source: str | Path) -> Path:
    """Return the adapter file of a run or checkpoint folder, or the file itself.

    Args:
        source: a path, or a `package://` address.

    Raises:
        RunError: there is none.
    """
    path = local_path(str(source))
    if path.suffix in (".yaml", ".yml"):
        raise RunError(f"{path} is a recipe, not an adapter.", "Train it first: dcft train.")
    if path.is_dir():
        if (path / ADAPTER_FILE).is_file():
            return path / ADAPTER_FILE
        raise RunError(
            f"{path} has no {ADAPTER_FILE}.",
            "The run did not finish: resume it, or use a folder in its checkpoints/."
            if RunFolder(path).last_checkpoint()
            else "Name the folder of a finished run, or an adapter file.",
        )
    if not path.exists():
        raise RunError(f"{path} does not exist.", "Name a run folder or an adapter file.")
    return path
