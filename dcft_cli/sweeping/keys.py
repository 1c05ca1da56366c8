"""What makes two runs the same: the resolved recipe and the rows that it trains on."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dcft_cli.addresses import local_path
from dcft_cli.errors import DataError, UserError, listed
from dcft_cli.recipe import Recipe
from dcft_cli.recipe.schema import HOW_STARTED
from dcft_cli.sweeping.cells import Cell

# Where a run computes, in which batches, and what it reports to do not change what it computes.
_LEFT_OUT: Any = {
    "training": {*HOW_STARTED, "auto_batch_size"},
    "sweep": True,
}


def cell_key(cell: Cell) -> str:
    """Return a hash of a cell's resolved recipe, its search, and its rows.

    Rows of local files count by their content, wherever the files are; rows on the Hub by the
    name, configuration and revision of the data set. A file that is missing counts as empty.
    """
    settings = cell.recipe.model_dump(mode="json", exclude=_LEFT_OUT)
    for key in ("train", "validation"):
        value = settings["data"][key]
        if isinstance(value, dict):
            settings["data"][key] = {n: _content(cell.recipe, a) for n, a in value.items()}
        elif value is not None:
            settings["data"][key] = _content(cell.recipe, value)
    settings["tune"] = {key: str(numbers) for key, numbers in cell.tune.items()}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]


def check_rows(cells: Sequence[Cell]) -> None:
    """Check that all local data files are there, and that each cell has rows to score.

    Raises:
        DataError: some are missing; all of them are listed.
    """
    missing = {}
    for cell in cells:
        data = cell.recipe.data
        if data.validation is None and data.holdout is None and data.hub is None:
            raise DataError(
                f"{cell.name}: there are no rows to score, so runs cannot be compared.",
                "Set data.validation or data.holdout.",
            )
        for address in _files(cell.recipe):
            if not local_path(address).is_file():
                missing[address] = str(local_path(address).absolute())
    if missing:
        raise DataError(
            f"Data files that do not exist: {listed(list(missing))}.",
            f"Looked for {listed(list(missing.values()))}.",
        )


def _files(recipe: Recipe) -> Iterator[str]:
    """Yield the addresses of the local files that a recipe reads."""
    data = recipe.data
    validation = data.validation if isinstance(data.validation, dict) else {"": data.validation}
    for address in (data.train, *validation.values()):
        if address is not None and data.is_file(address):
            yield address


def _content(recipe: Recipe, address: str) -> str:
    """Return a hash of a local file's content; of anything else, the name of a split, itself."""
    if not recipe.data.is_file(address):
        return address
    try:
        path = local_path(address)
        state = path.stat()
        return _digest(path, state.st_size, state.st_mtime_ns)
    except (OSError, UserError):
        return "missing"


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    """Hash a file, once for each state of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
