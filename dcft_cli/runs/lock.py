"""The lock of a folder that one process at a time may write into."""

import errno
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from dcft_cli.atomic import naming
from dcft_cli.errors import RunError

# Some file systems of clusters have no locks, or are mounted without them.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def exclusive(folder: Path, lock_file: Path) -> Iterator[str]:
    """Hold the lock of a folder; on leaving, remove its file and the empty folders made for it.

    The lock is the operating system's (flock), so that a dead process holds none. On NFS it holds
    between hosts. Processes that only read need no lock.

    Args:
        folder: what the user named, for the message.
        lock_file: on which the lock is taken; says who has it.

    Yields:
        A note for the user if the file system has no locks; else "".

    Raises:
        RunError: another process has the lock.
    """
    missing = [p for p in lock_file.parents if not p.exists()]
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open_locked(folder, lock_file)
    try:
        yield (
            f"The file system of {folder} has no locks: make sure that no other process writes "
            "there."
            if descriptor is None
            else ""
        )
    finally:
        if descriptor is not None:
            # Unless the folder was removed, and another process has its lock in a new one.
            if _is_at(descriptor, lock_file):
                lock_file.unlink()
            os.close(descriptor)
        for path in missing:
            with suppress(OSError):  # it has files by now
                path.rmdir()


def _open_locked(folder: Path, lock_file: Path) -> int | None:
    """Return the locked file's descriptor; None where there are no locks."""
    while True:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise _in_use(folder, lock_file) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            lock_file.unlink(missing_ok=True)
            return None
        if _is_at(descriptor, lock_file):
            break
        os.close(descriptor)  # the process that had it has just removed the file
    owner = {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    with naming(lock_file):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(owner).encode())
    return descriptor


def _lock(descriptor: int) -> None:
    """Take the lock of an open file; raise BlockingIOError if another process has it."""
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "no flock on Windows")
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _in_use(folder: Path, lock_file: Path) -> RunError:
    try:
        owner = json.loads(lock_file.read_text(encoding="utf-8"))
        who = f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # not written yet, or just removed
        who = "another process"
    return RunError(
        f"{folder} is in use by {who}.", "Wait until it ends, or stop it; or choose another folder."
    )
