"""Write rows of any number: jsonl, csv, tsv and parquet files that appear whole or not at all.

Rows are first written as lines of JSON, of which a csv or parquet file is made when all columns
are known.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from dcft_cli.atomic import atomic_path, naming
from dcft_cli.errors import DataError, UserError
from dcft_cli.outputs import check_file
from dcft_cli.recipe.schema import FILE_FORMATS

Row = Mapping[str, Any]

FORMATS = {end: kind for end, kind in FILE_FORMATS.items() if not kind.startswith("conll")}
"""By the ending of a file."""
_CHUNK = 1024


def _plain(value: Any) -> Any:
    """Return a value without numbers that JSON does not have: NaN and infinities become null."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_plain, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value


def output_format(path: Path) -> str:
    """Return the format that the ending of a file names.

    Raises:
        UserError: it names none.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(
            f"{path}: the format does not follow from the ending.",
            f"Use one of: {', '.join(FORMATS)}.",
        )
    return FORMATS[path.suffix.lower()]


def check_output(path: Path) -> None:
    """Check, before anything is computed, that a file can be written.

    Raises:
        UserError: it cannot, or its ending names no format.
    """
    check_file(path)
    output_format(path)


def write_lines(file: BinaryIO, rows: Iterable[Row]) -> None:
    """Append rows as lines of JSON, one object each."""
    # One write, so that a process that is stopped leaves whole lines. Dates are written as texts,
    # and half a surrogate pair as the JSON escape that it was read from.
    lines = (json.dumps(_plain(row), ensure_ascii=False, default=str) + "\n" for row in rows)
    file.write("".join(lines).encode("utf-8", "backslashreplace"))
    file.flush()


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a file of rows, in the format that its ending names; see `finish_lines`."""
    with scratch_folder(path) as folder:
        with (folder / "lines").open("wb") as file:
            write_lines(file, rows)
        finish_lines(folder / "lines", path)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder in the folder of `path`, which is created if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        yield Path(folder)


def finish_lines(lines: Path, path: Path) -> None:
    """Turn a file of lines into the file at `path`, and replace an earlier one.

    In csv and tsv files, a mapping has a column for each of its keys (`probabilities.news`), and
    a list is JSON.

    Args:
        lines: on the file system of `path`.

    Raises:
        DataError: a column without a common type, which a parquet file cannot hold.
    """
    file_format = output_format(path)
    with atomic_path(path) as temporary:
        if file_format == "jsonl":
            lines.replace(temporary)
        elif file_format == "parquet":
            _write_parquet(lines, temporary)
        else:
            _write_table(lines, temporary, "," if file_format == "csv" else "\t")


def _read(lines: Path) -> Iterator[dict[str, Any]]:
    with lines.open("rb") as file:
        yield from map(json.loads, file)


def _write_table(lines: Path, out: Path, delimiter: str) -> None:
    columns: dict[str, None] = {}  # an ordered set
    for row in _read(lines):
        columns |= dict.fromkeys(_flat(row))
    with out.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, delimiter=delimiter, lineterminator="\n")
        table.writeheader()
        table.writerows(map(_flat, _read(lines)))


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": part for key, part in _flat(value).items()}
        else:
            is_list = isinstance(value, list)
            flat[name] = json.dumps(value, ensure_ascii=False) if is_list else value
    return flat


def _write_parquet(lines: Path, out: Path) -> None:
    schema = pyarrow.schema([])
    name = ""
    try:
        for rows in _chunks(lines):
            for name in dict.fromkeys(name for row in rows for name in row):
                found = pyarrow.array([row.get(name) for row in rows]).type
                fields = pyarrow.schema([(name, found)])
                schema = pyarrow.unify_schemas([schema, fields], promote_options="permissive")
        with pyarrow.parquet.ParquetWriter(out, schema) as writer:
            for rows in _chunks(lines):
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
    except pyarrow.ArrowException as error:
        raise DataError(
            f"A parquet file cannot hold these rows (column `{name}`): {error}.",
            "All values of a column need one type. Write a jsonl file.",
        ) from None


def _chunks(lines: Path) -> Iterator[list[dict[str, Any]]]:
    rows = _read(lines)
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk
