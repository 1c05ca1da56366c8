"""The folder of a run, and finding the adapter in it."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcft_cli.errors import RunError

ADAPTER = "adapter.safetensors"
RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it makes."""

    path: Path

    @property
    def adapter(self) -> Path:
        """The best checkpoint's adapter."""
        return self.path / ADAPTER

    @property
    def recipe(self) -> Path:
        """The recipe with every setting resolved."""
        return self.path / RECIPE

    @property
    def metrics(self) -> Path:
        """Scores of the best and the last checkpoint, and what they cost."""
        return self.path / "metrics.json"

    @property
    def log(self) -> Path:
        """Losses and scores, one JSON object a line."""
        return self.path / "log.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The best and the last checkpoint, with what it takes to go on from them."""
        return self.path / "checkpoints"

    def last_checkpoint(self) -> Path | None:
        """The checkpoint to go on from."""
        # A run that was stopped while saving leaves a checkpoint without its last file.
        found = [p.parent for p in self.checkpoints.glob("checkpoint-*/trainer_state.json")]
        return max(found, key=step_of, default=None)

    def check_free(self, *, overwrite: bool, resume: bool) -> None:
        """Sees that no earlier run is lost, and that there is one to resume if asked.

        Raises:
            RunError: the folder holds a run already, or is no folder, or holds nothing to resume.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(
                f"{self.path} is a file; a run needs a folder.", "Give another --output."
            )
        if resume:
            if self.last_checkpoint() is None:
                raise RunError(
                    f"{self.path} holds no checkpoint to resume from.", "Leave out --resume."
                )
        elif not overwrite and self.is_used():
            raise RunError(
                f"{self.path} holds a run already.",
                "Give another --output, --overwrite to replace it, or --resume to go on with it.",
            )

    def is_used(self) -> bool:
        """Whether an earlier run left something of worth here."""
        return self.adapter.exists() or self.last_checkpoint() is not None

    def forget_after(self, step: int) -> None:
        """Takes log lines of later steps out: a resumed run takes those steps again."""
        if self.log.exists():
            lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            self.log.write_text("".join(kept), encoding="utf-8")

    def clear(self) -> None:
        """Removes what an earlier run left, and nothing else."""
        for path in (self.adapter, self.recipe, self.metrics, self.log, self.checkpoints):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def step_of(checkpoint: Path) -> int:
    """The optimizer step that a checkpoint folder is named after."""
    return int(checkpoint.name.rpartition("-")[2])


def adapter_file(place: str | Path) -> Path:
    """The adapter file of a run folder or checkpoint, or the file itself.

    Raises:
        RunError: there is none.
    """
    path = Path(place)
    if path.is_dir():
        if (path / ADAPTER).is_file():
            return path / ADAPTER
        raise RunError(
            f"{path} holds no {ADAPTER}.",
            "The run did not finish: resume it, or take a folder of its checkpoints/."
            if RunFolder(path).last_checkpoint()
            else "Give the folder of a finished run, or an adapter file.",
        )
    if not path.exists():
        raise RunError(f"There is no {path}.", "Give a run folder or an adapter file.")
    return path


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file that is there whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)
