"""The lock of a folder, between processes."""

import errno
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dcft_cli.errors import RunError
from dcft_cli.runs import lock
from dcft_cli.runs.folder import RunFolder
from dcft_cli.runs.lock import exclusive

HOLD = """
import sys
from pathlib import Path
from dcft_cli.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has the lock of a run folder until its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process


def test_a_second_process_is_told_who_has_the_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with other_process(run.path) as other:
        with pytest.raises(RunError) as caught, run.lock():
            pass
        who = f"{run.path} is in use by process {other.pid} on {platform.node()}, since 20"
        assert caught.value.message.startswith(who)
        assert caught.value.exit_code == 2
        assert (run.path / ".lock").exists(), "the other one still has it"
        assert other.stdin is not None
        other.stdin.close()
        assert other.wait() == 0
        assert not run.path.exists(), "made for the lock, and empty"
    with run.lock():
        pass


def test_a_dead_process_holds_no_lock(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with other_process(run.path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert (run.path / ".lock").exists()
    with run.lock():
        (run.path / "file").touch()
    assert [path.name for path in run.path.iterdir()] == ["file"]


def test_empty_folders_made_for_a_lock_are_removed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path / "a" / "b").lock():
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_made_again_has_a_lock_of_its_own(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.lock():
        shutil.rmtree(run.path)
        with other_process(run.path):
            pass
        with other_process(run.path) as other:
            assert other.poll() is None
        run.path.mkdir(exist_ok=True)
        (run.path / ".lock").write_text("of another process")
    assert (run.path / ".lock").read_text() == "of another process"


def test_a_lock_file_that_is_removed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that had the lock leaves between the opening and the locking of its file."""
    file = tmp_path / ".lock"
    real, locked = lock._lock, []

    def remove_first(descriptor: int) -> None:
        if not locked:
            file.unlink()
        locked.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(lock, "_lock", remove_first)
    with exclusive(tmp_path, file):
        assert len(locked) == 2
        assert f'"pid": {os.getpid()}' in file.read_text()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", refuse)
    with RunFolder(tmp_path / "run").lock() as note:
        assert "has no locks" in note
        (tmp_path / "run" / "file").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_the_first_of_several_processes_locks_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    with other_process(run.path):
        for rank, local_rank in ((0, 0), (1, None)):  # without a local rank there is no group
            monkeypatch.setenv("RANK", str(rank))
            if local_rank is not None:
                monkeypatch.setenv("LOCAL_RANK", str(local_rank))
            with pytest.raises(RunError, match="is in use"), run.lock():
                pass
            monkeypatch.delenv("LOCAL_RANK", raising=False)
        monkeypatch.setenv("LOCAL_RANK", "0")  # the first one of the second host
        with run.lock() as note:
            assert note == ""
