"""Checkpoint folders on the disk."""

import json
import os
from pathlib import Path

import pytest

from dcft_cli.training.checkpoints import (
    MANIFEST,
    TRAINER_STATE,
    checkpoint_path,
    find_checkpoint,
    last_checkpoint,
    remove_others,
    write_checkpoint,
)


def write(folder: Path, step: int, best: int | None = None) -> Path:
    path = checkpoint_path(folder, step)
    state = json.dumps({"global_step": step, "best_global_step": best})
    write_checkpoint(path, lambda part: (part / TRAINER_STATE).write_text(state))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_checkpoint_has_the_highest_step(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "nowhere") is None
    write(tmp_path, 10)
    write(tmp_path, 9)
    for other in ("checkpoint-50-copy", "checkpoint-", "checkpoint-x", "other"):
        (tmp_path / other).mkdir()
    (tmp_path / "checkpoint-99").touch()
    assert find_checkpoint(tmp_path) == (tmp_path / "checkpoint-10", {})


def test_a_checkpoint_that_fails_leaves_nothing(tmp_path: Path) -> None:
    whole = write(tmp_path, 2)

    def fail(part: Path) -> None:
        (part / TRAINER_STATE).write_text("half")
        raise OSError("disk full")

    for step in (2, 3):
        with pytest.raises(OSError, match="disk full"):
            write_checkpoint(checkpoint_path(tmp_path, step), fail)
    assert names(tmp_path) == ["checkpoint-2"]
    assert last_checkpoint(tmp_path) == whole


def test_until_it_is_renamed_it_is_no_checkpoint(tmp_path: Path) -> None:
    seen = []

    def look(part: Path) -> None:
        seen.append((part.parent, last_checkpoint(tmp_path)))
        (part / TRAINER_STATE).write_text("{}")

    write_checkpoint(checkpoint_path(tmp_path, 1), look)
    assert seen == [(tmp_path, None)]
    assert names(tmp_path / "checkpoint-1") == [MANIFEST, TRAINER_STATE]


def test_it_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: dict[bool, set[int]] = {False: set(), True: set()}

    def record(descriptor: int) -> None:
        flushed[checkpoint_path(tmp_path, 1).exists()].add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", record)
    path = write(tmp_path, 1)
    assert flushed[False] == {file.stat().st_ino for file in (path, *path.iterdir())}
    assert flushed[True] == {tmp_path.stat().st_ino}, "its name"


def test_a_damaged_checkpoint_is_replaced(tmp_path: Path) -> None:
    path = write(tmp_path, 3)
    (path / TRAINER_STATE).write_text("")
    assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(write(tmp_path, 3).parent) == path


@pytest.mark.parametrize(
    "manifest",
    ["", "[]", "{}", "[" * 100_000, '{"step": 3}', '{"step": 3, "files": {}}',
     '{"step": 3, "files": {"trainer_state.json": 1}}', '{"step": 3, "files": [1]}'],
)  # fmt: skip
def test_a_manifest_that_is_none(manifest: str, tmp_path: Path) -> None:
    path = write(tmp_path, 3)
    (path / MANIFEST).write_text(manifest)
    assert find_checkpoint(tmp_path) == (None, {path: "manifest.json is damaged"})


def test_a_checkpoint_that_names_a_lost_best_one_is_passed_over(tmp_path: Path) -> None:
    first = write(tmp_path, 2, best=2)
    last = write(tmp_path, 6, best=4)
    found, problems = find_checkpoint(tmp_path)
    assert found == first
    assert problems == {
        last: "it needs checkpoint-4, the best so far, in which manifest.json is missing"
    }


def test_others_are_removed_with_what_killed_processes_left(tmp_path: Path) -> None:
    paths = [write(tmp_path, step) for step in (1, 2, 3)]
    for name in (".checkpoint-4.123.part", "checkpoint-2-mine"):
        (tmp_path / name).mkdir()
    remove_others(tmp_path, {paths[0], paths[2]})
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2-mine", "checkpoint-3"]
