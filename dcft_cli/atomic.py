"""Files, folders and lines that appear whole or not at all."""

import errno
import glob
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename it to `path` on success.

    The caller creates a file or a folder there; parents are created here. If the block raises, it
    is removed and `path` stays as it was. An existing file, or an empty folder, at `path` is
    replaced.
    """
    # In the same folder: a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(path):
            yield temporary
            if temporary.is_dir() and path.is_dir():  # Windows replaces no folder
                path.rmdir()
            temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of `atomic_path(path)`; no other process may be at it."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, with one write: whole, or, without room for it, not at all."""
    data = f"{line}\n".encode()
    with naming(path), path.open("ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        try:
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(start)
            raise


# safetensors and others in Rust write the number; torch says that the file is shorter than written.
_NUMBER = re.compile(r"\(os error (\d+)\)")
_TORCH = re.compile(r"unexpected pos \d+ vs \d+|file write failed")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Context that names a path in an error that says what went wrong, and not where.

    A file has no name any more when the disk is found to be full. Libraries raise errors of their
    own then.

    Raises:
        OSError: with the path as its `filename`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    except Exception as error:
        if found := _NUMBER.search(str(error)):
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        if _TORCH.search(str(error)):
            problem = "No space left, or above a limit of the file size"
            raise OSError(errno.ENOSPC, problem, str(path)) from error
        raise
