"""Checkpoint folders: written whole or not at all, and checked before they are resumed."""

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from dcft_cli.atomic import atomic_path
from dcft_cli.errors import RunError

MANIFEST = "manifest.json"
"""File in a checkpoint with size and CRC-32 of every other file; written last."""

TRAINER_STATE = "trainer_state.json"
"""File in a checkpoint with step, scores and callbacks, in the format of transformers."""

_NAME = re.compile(r"checkpoint-([0-9]+)")
_CHUNK = 2**20  # bytes


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint of an optimizer step."""
    return folder / f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step in a checkpoint folder's name."""
    return int(checkpoint.name.rpartition("-")[2])


def write_checkpoint(path: Path, write: Callable[[Path], object]) -> None:
    """Write a checkpoint beside its place, flush it to the disk, and rename it.

    Args:
        path: from `checkpoint_path`; what is there, a damaged checkpoint, is replaced.
        write: writes the files into a folder.
    """
    with atomic_path(path) as temporary:
        temporary.mkdir()
        write(temporary)
        files = {file.name: _size_and_crc(file) for file in sorted(temporary.iterdir())}
        manifest = json.dumps({"step": step_of(path), "files": files}, indent=2) + "\n"
        (temporary / MANIFEST).write_text(manifest, encoding="utf-8")
        for file in temporary.iterdir():
            _flush(file)
        _flush(temporary)
        if path.exists():
            shutil.rmtree(path)
    _flush(path.parent)


def remove_others(folder: Path, keep: Collection[Path]) -> None:
    """Remove all checkpoints but `keep`, and what killed processes left half-written."""
    for path in [*_checkpoints(folder), *folder.glob(".checkpoint-*.part")]:
        if path not in keep:
            shutil.rmtree(path)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that a run can be resumed from."""
    return find_checkpoint(folder)[0]


def find_checkpoint(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """Return the newest checkpoint to resume from, and what is wrong with each newer one."""
    problems: dict[Path, str] = {}
    for path in sorted(_checkpoints(folder), key=step_of, reverse=True):
        problem = _problem(path) or _problem_of_best(path)
        if not problem:
            return path, problems
        problems[path] = problem
    return None, problems


def read_json(checkpoint: Path, name: str) -> dict[str, Any]:
    """Return a JSON file of a whole checkpoint.

    Raises:
        RunError: it is not one that dcft wrote.
    """
    try:
        content = json.loads((checkpoint / name).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not a mapping")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"{checkpoint / name} cannot be read: {error}.",
            "Delete the checkpoint to resume from the one before it.",
        ) from None
    return content


def _checkpoints(folder: Path) -> list[Path]:
    return [p for p in folder.glob("checkpoint-*") if _NAME.fullmatch(p.name) and p.is_dir()]


def _problem(checkpoint: Path) -> str:
    """Return why a checkpoint is not whole; empty if it is."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        step = manifest["step"]
        files = {
            name: (entry["bytes"], entry["crc32"]) for name, entry in manifest["files"].items()
        }
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is damaged"
    if step != step_of(checkpoint):
        return f"it is a copy of checkpoint-{step}"
    if TRAINER_STATE not in files:
        return f"{MANIFEST} is damaged"
    for name, (size, crc) in files.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if (found := file.stat().st_size) != size:
            return f"{name} has {found:,} bytes instead of {size:,}"
        if _crc(file) != crc:
            return f"{name} is damaged"
    return ""


def _problem_of_best(checkpoint: Path) -> str:
    """Return why the best checkpoint before this one, the result if none is better, is lost."""
    best = read_json(checkpoint, TRAINER_STATE).get("best_global_step")
    if best is None or best == step_of(checkpoint):
        return ""
    path = checkpoint_path(checkpoint.parent, best)
    problem = _problem(path)
    return problem and f"it needs {path.name}, the best so far, in which {problem}"


def _size_and_crc(file: Path) -> dict[str, int]:
    return {"bytes": file.stat().st_size, "crc32": _crc(file)}


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _flush(path: Path) -> None:
    """Make the system write a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folder
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
