"""Reading rows: local files (jsonl, csv, tsv, parquet, conll) and Hub data sets.

Text files are read line by line with the standard library, so that an error names the line.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from dcft_cli.addresses import local_path
from dcft_cli.data.conll import read_conll
from dcft_cli.data.quiet import quiet
from dcft_cli.data.rows import Rows, shown
from dcft_cli.errors import DataError
from dcft_cli.recipe.schema import DataSection

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".conll": "conll",
    ".iob": "conll",
    ".iob2": "conll",
    ".bio": "conll",
}


def read_file(address: str, data: DataSection, txt: str | None = None) -> Rows:
    """Reads a local file, or one inside an installed package (`package://`).

    Args:
        address: of the file.
        data: its format, where the ending does not tell it, and its columns.
        txt: format of files that end in .txt; None where these may be anything.

    Raises:
        DataError: no such file, an unknown format, a file that is not what its format says
            (with its line), or one without rows.
        UserError: the package of a `package://` address is not installed.
    """
    path = local_path(address)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"The data file {address} {what}.", f"Looked for {path.absolute()}.")
    form = data.format or {**_FORMATS, ".txt": txt}.get(path.suffix.lower())
    if form is None:
        raise DataError(
            f"{address}: the ending does not tell the file's format.",
            "Say it: data.format=jsonl (or csv, tsv, parquet, conll).",
        )
    if form == "parquet":
        rows = _read_parquet(path, address)
    elif form == "jsonl":
        rows = _read_jsonl(_lines(path, address), address)
    elif form == "conll":
        rows = read_conll(_lines(path, address), address, data)
    else:
        rows = _read_table(_lines(path, address), address, "," if form == "csv" else "\t", data)
    if not rows.records:
        raise DataError(f"{address} holds no rows.")
    return rows


def read_hub(data: DataSection, split: str, wanted: Sequence[str]) -> Rows:
    """Reads the columns `wanted` (those that there are) of one split of `data.hub`.

    Raises:
        DataError: the Hub cannot be reached, or has no such data set, config or split.
    """
    assert data.hub is not None
    origin = f"{data.hub}{f' ({data.config})' if data.config else ''}, split {split}"
    try:
        with quiet():
            dataset = datasets.load_dataset(
                data.hub, data.config, split=split, revision=data.revision
            )
    # The errors of this call come from several libraries and share no base class.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{origin} could not be read from the Hub: {reason}",
            "Without a network, give local files: data.train=train.jsonl data.validation=dev.jsonl",
        ) from error
    if len(dataset) == 0:
        raise DataError(f"{origin} holds no rows.")
    columns = dataset.column_names
    records = dataset.select_columns([name for name in columns if name in wanted]).to_list()
    names = _class_names(dataset.features)
    return Rows(records, columns, origin, published=True, class_names=names)


def _lines(path: Path, origin: str) -> Iterator[str]:
    # Bytes are split at newlines alone: U+2028 and its like may stand inside a text.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{origin}, line {number}: not UTF-8 (byte {error.start + 1} of the line is"
                    f" 0x{line[error.start]:02x}).",
                    "Convert the file, for example: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW",
                ) from None


def _read_jsonl(lines: Iterator[str], origin: str) -> Rows:
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    columns: dict[str, None] = {}  # a set that keeps the order
    hint = "A jsonl file holds one JSON object a line: the row, by column name."
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.rstrip())
        except json.JSONDecodeError as error:
            raise DataError(
                f"{origin}, line {number}: malformed JSON at character {error.colno}"
                f" ({error.msg}).",
                hint,
            ) from None
        if not isinstance(record, dict):
            raise DataError(f"{origin}, line {number}: no JSON object but {shown(record)}.", hint)
        records.append(record)
        numbers.append(number)
        columns |= dict.fromkeys(record)
    return Rows(records, list(columns), origin, numbers)


def _read_table(lines: Iterator[str], origin: str, delimiter: str, data: DataSection) -> Rows:
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if data.quoting else csv.QUOTE_NONE,
        strict=True,
    )
    rows: list[list[str]] = []
    numbers: list[int] = []
    end = 0
    try:
        for row in reader:
            if row:  # an empty line gives no field at all
                rows.append(row)
                numbers.append(end + 1)
            end = reader.line_num
    except csv.Error as error:
        raise DataError(
            f"{origin}, row from line {end + 1}: {error}.",
            "Where quotation marks are part of the texts, set data.quoting=false.",
        ) from None
    columns = data.columns
    if columns is None:
        columns, rows, numbers = (rows or [[]])[0], rows[1:], numbers[1:]
    if len(set(columns)) < len(columns):
        raise DataError(f"{origin}: a column name stands twice: {', '.join(columns)}.")
    records = [dict(zip(columns, row, strict=False)) for row in rows]
    table = Rows(records, columns, origin, numbers)
    problems = [
        (index, f"{len(row)} instead of {len(columns)}")
        for index, row in enumerate(rows)
        if len(row) != len(columns)
    ]
    if problems:
        hint = f"Every row has one field a column ({', '.join(columns)})."
        table.refuse("wrong number of fields", problems, hint)
    return table


def _read_parquet(path: Path, origin: str) -> Rows:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{origin} is no readable parquet file: {error}") from error
    names: dict[str, list[str]] = {}
    if b"huggingface" in (table.schema.metadata or {}):  # written by the datasets library
        names = _class_names(datasets.Features.from_arrow_schema(table.schema))
    return Rows(table.to_pylist(), table.column_names, origin, class_names=names)


def _class_names(features: datasets.Features) -> dict[str, list[str]]:
    """The class names of columns that hold class numbers, or lists of them."""
    kinds = {column: getattr(kind, "feature", kind) for column, kind in features.items()}
    return {
        column: list(kind.names)
        for column, kind in kinds.items()
        if isinstance(kind, datasets.ClassLabel) and kind.names
    }
