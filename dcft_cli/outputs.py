"""Places to write, checked before work starts: they are on this machine, and writable."""

import re
import tempfile
from pathlib import Path

from dcft_cli.errors import UserError

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # one letter is a Windows drive


def check_file(path: Path) -> None:
    """Check that a file can be written, and its folders can be created; leaves nothing behind.

    Raises:
        UserError: it cannot, or the path is an address.
    """
    refuse_address(path, "file")
    if path.is_dir():
        raise UserError(f"{path} is a folder.", "Name another file.")
    _check_writable(path, path.absolute().parent, "Name another file.")


def check_folder(path: Path) -> None:
    """Check that a folder can be created or written into; leaves nothing behind.

    Raises:
        UserError: it cannot, or the path is an address.
    """
    refuse_address(path, "folder")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file.", "Name another folder.")
    _check_writable(path, path.absolute(), "Name another folder.")


def refuse_address(output: str | Path, what: str) -> None:
    """Raise UserError if an output is an address, such as `package://PACKAGE/PATH`.

    Args:
        output: as the user named it; a Path has lost one of the slashes.
        what: "file" or "folder", which is to be written.
    """
    if is_address(output):
        named = _ADDRESS.sub(r"\1://", str(output), count=1)
        raise UserError(
            f"{named} is an address, not a {what} to write.", f"Name a {what} on this machine."
        )


def is_address(output: str | Path) -> bool:
    """Return whether an output starts with a scheme, such as `hub://`."""
    return _ADDRESS.match(str(output)) is not None


def _check_writable(path: Path, folder: Path, hint: str) -> None:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        # Permissions do not tell: /proc is writable by them. On Linux, this file has no name.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        is_there = existing == path.absolute()
        problem = "is not writable" if is_there else f"cannot be created in {existing}"
        raise UserError(f"{path} {problem}.", hint) from error
