"""The run folder of a cell, and the record of its starts in it."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcft_cli.atomic import append_line
from dcft_cli.errors import RunError
from dcft_cli.runs.folder import RunFolder
from dcft_cli.sweeping.owners import this_process

RECORD = "sweep.jsonl"
"""In a run folder: a line with the key and the settings of its run, then one for each start and
end."""


def run_folder(output: Path, name: str, key: str, *, create: bool = False) -> Path:
    """Return the folder of a run in the folder of its sweep.

    It is called `name`, or, if that is the folder of another run (such as the same settings with
    other rows), `name` with a part of the key.

    Args:
        key: of the run; two runs with different keys never get the same folder.
        create: whether to create the folder and its record.

    Raises:
        RunError: both folders are those of other runs.
    """
    for folder in (output / name, output / f"{name}-{key[:8]}"):
        if _is_free_for(folder, key) and (not create or _create(folder, key)):
            return folder
    raise RunError(f"{folder} contains another run.", "Move it away, or choose another --output.")


def record(folder: Path, event: str, **more: Any) -> None:
    """Append an event to a run's record."""
    owner = this_process()
    line = {"event": event, "time": round(time.time(), 3), "host": owner["host"],
            "pid": owner["pid"], **more}  # fmt: skip
    append_line(folder / RECORD, json.dumps(line))


def last_event(folder: Path) -> str | None:
    """Return the last event in a run's record; None before the first."""
    lines = (folder / RECORD).read_text(encoding="utf-8").splitlines(keepends=True)
    events = [json.loads(line).get("event") for line in lines if line.endswith("\n")]
    return events[-1] if events else None


def _is_free_for(folder: Path, key: str) -> bool:
    if (folder / RECORD).exists():
        return _key_of(folder) == key
    run = RunFolder(folder)
    return not (run.recipe.exists() or run.metrics.exists() or run.checkpoints.exists())


def _create(folder: Path, key: str) -> bool:
    """Create a record; return whether it is this run's."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / RECORD).open("x", encoding="utf-8") as file:
            file.write(json.dumps({"key": key}) + "\n")
    except FileExistsError:
        return _key_of(folder) == key
    return True


def _key_of(folder: Path) -> str | None:
    lines = (folder / RECORD).read_text(encoding="utf-8").splitlines(keepends=True)
    if not lines or not lines[0].endswith("\n"):
        return None
    first: Mapping[str, Any] = json.loads(lines[0])
    return str(first["key"])
