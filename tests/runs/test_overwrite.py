"""A finished run is kept until the run that replaces it has an adapter."""

import errno
import os
from pathlib import Path

import pytest

from dcft_cli.errors import RunError
from dcft_cli.recipe import LoadedRecipe
from dcft_cli.runs.evaluate import evaluate
from dcft_cli.runs.folder import RunFolder, adapter_file
from tests.jobs import Watcher, recipe, train

FILES = ["adapter.safetensors", "log.jsonl", "metrics.json", "recipe.yaml"]


@pytest.fixture
def loaded(base: Path, tmp_path: Path) -> LoadedRecipe:
    return recipe("mrpc", tmp_path, base)


def contents(run: RunFolder) -> dict[str, bytes]:
    return {name: (run.path / name).read_bytes() for name in FILES}


def test_a_run_that_is_killed_leaves_the_one_before(loaded: LoadedRecipe, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    first = train(loaded, run.path)
    old = contents(run)

    for _ in range(2):  # the second time, what is replaced is unfinished
        with pytest.raises(KeyboardInterrupt):
            train(loaded, run.path, overwrite=True, stop_after=5)
        assert contents(run.previous) == old
        assert run.previous.checkpoints.is_dir()
        with pytest.raises(RunError) as caught:
            adapter_file(run.path)
        assert f"The run before it is kept in {run.previous.path}." in caught.value.hint
    scores = evaluate(str(run.previous.path), [], Watcher()).metrics
    assert scores == pytest.approx(first.metrics["metrics"])

    second = train(loaded, run.path, resume=True)
    assert second.metrics["last_step"] == 6
    assert adapter_file(run.path) == run.adapter
    assert not run.previous.path.exists()


def test_the_user_is_told(loaded: LoadedRecipe, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert not any("kept" in note for note in train(loaded, run.path).watcher.notes)
    again = train(loaded, run.path, overwrite=True)
    kept = f"The earlier run is kept in {run.previous.path} until this one has an adapter."
    assert kept in again.watcher.notes
    assert not run.previous.path.exists()


def finished(run: RunFolder, text: str) -> None:
    run.checkpoints.mkdir(parents=True)
    (run.checkpoints / "checkpoint-2").mkdir()
    for name in FILES:
        (run.path / name).write_text(text)


def test_a_kept_run_is_not_lost_without_overwrite(loaded: LoadedRecipe, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    finished(run.previous, "old")
    with pytest.raises(RunError, match="contains a run already"):
        train(loaded, run.path)
    assert set(contents(run.previous).values()) == {b"old"}
    assert train(loaded, run.path, overwrite=True).metrics["last_step"] == 6


def test_what_cannot_be_moved_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as checkpoints of another user."""
    run = RunFolder(tmp_path)
    finished(run, "old")
    real = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if path == run.checkpoints:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        run.make_room()
    assert set(contents(run).values()) == {b"old"}


@pytest.mark.parametrize("moves", range(1, 6))
def test_an_interrupted_move_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    run = RunFolder(tmp_path)
    finished(run, "old")
    real, done = Path.replace, []

    def stop(path: Path, target: Path) -> Path:
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(path)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", stop)
    if moves < 5:
        with pytest.raises(KeyboardInterrupt):
            run.make_room()
        monkeypatch.undo()
    assert run.make_room()
    assert set(contents(run.previous).values()) == {b"old"}
    assert not any((run.path / name).exists() for name in FILES)


def test_a_newer_finished_run_takes_the_place_of_the_kept_one(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    finished(run, "newer")
    finished(run.previous, "old")
    (run.path / "notes.txt").touch()
    assert run.make_room()
    assert set(contents(run.previous).values()) == {b"newer"}
    assert sorted(path.name for path in run.path.iterdir()) == [".previous", "notes.txt"]
