"""The folder of a run, and finding the adapter in it."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcft_cli.adapter_file.read import ADAPTER_FILE
from dcft_cli.errors import RunError

RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it makes."""

    path: Path

    @property
    def adapter(self) -> Path:
        """The best checkpoint's adapter."""
        return self.path / ADAPTER_FILE

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
        found = [p.parent for p in self.checkpoints.glob("checkpoint-[0-9]*/trainer_state.json")]
        return max(found, key=step_of, default=None)

    def check_free(self, *, overwrite: bool, resume: bool) -> None:
        """Sees that no earlier run is lost, and that there is one to resume if asked.

        Raises:
            RunError: the folder holds a run already, cannot be written, or holds nothing to resume.
        """
        there = next(place for place in (self.path, *self.path.parents) if place.exists())
        if not (there.is_dir() and os.access(there, os.W_OK)):
            what = "cannot be written to" if there.is_dir() else "is a file"
            raise RunError(
                f"{there} {what}; {self.path} cannot be a run's folder.", "Give another --output."
            )
        if resume:
            if self.last_checkpoint() is None:
                raise RunError(
                    f"{self.path} holds no checkpoint to resume from.",
                    "Start it anew: leave out --resume (and give --overwrite if it was begun).",
                )
        elif not overwrite and self.is_used():
            raise RunError(
                f"{self.path} holds a run already.",
                "Give another --output, --overwrite to replace it, or --resume to go on with it.",
            )

    def is_used(self) -> bool:
        """Whether files lie here that a run would write over: an earlier run's, or anybody's."""
        return any(path.exists() for path in (*self._files(), self.checkpoints))

    def forget_after(self, step: int) -> None:
        """Takes log lines of later steps out: a resumed run takes those steps again."""
        if self.log.exists():
            lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]  # a killed run may tear one
            kept = [line for line in whole if json.loads(line)["step"] <= step]
            beside = self.log.with_name(f".{self.log.name}.{os.getpid()}.part")
            beside.write_text("".join(kept), encoding="utf-8")
            beside.replace(self.log)  # other processes read it

    def baselines(self) -> dict[str, dict[str, float]]:
        """What is reached without training, as the log has it: scores by name."""
        if not self.log.exists():
            return {}
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return {line["baseline"]: line["scores"] for line in whole if "baseline" in line}

    def clear(self) -> None:
        """Removes what an earlier run left, and nothing else."""
        for path in self._files():
            path.unlink(missing_ok=True)
        for path in self.checkpoints.glob("checkpoint-*"):
            shutil.rmtree(path)

    def _files(self) -> list[Path]:
        return [self.adapter, self.recipe, self.metrics, self.log]


def step_of(checkpoint: Path) -> int:
    """The optimizer step that a checkpoint folder is named after."""
    return int(checkpoint.name.rpartition("-")[2])


def adapter_file(place: str | Path) -> Path:
    """The adapter file of a run folder or checkpoint, or the file itself.

    Raises:
        RunError: there is none.
    """
    path = Path(place).expanduser()
    if path.suffix in (".yaml", ".yml"):
        raise RunError(f"{path} is a recipe, not an adapter.", "Train it first: dcft train.")
    if path.is_dir():
        if (path / ADAPTER_FILE).is_file():
            return path / ADAPTER_FILE
        raise RunError(
            f"{path} holds no {ADAPTER_FILE}.",
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
