"""Read rows from local files (jsonl, csv, tsv, parquet, conll) and Hub data sets.

Text files are read line by line with the standard library, so that errors can name the line.
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
from dcft_cli.data.rows import Rows, format_value
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


def read_file(address: str, data: DataSection, txt_format: str | None = None) -> Rows:
    """Read a local file, or one inside an installed package (`package://`).

    Args:
        address: of the file.
        data: the format, if it does not follow from the ending, and the columns.
        txt_format: format of files that end in .txt; None if it is unknown.

    Raises:
        DataError: a file that is missing, of unknown format, malformed (with the line), or
            without rows.
        UserError: the package of a `package://` address is not installed.
    """
    path = local_path(address)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"The data file {address} {what}.", f"Looked for {path.absolute()}.")
    file_format = data.format or {**_FORMATS, ".txt": txt_format}.get(path.suffix.lower())
    if file_format is None:
        raise DataError(
            f"{address}: the format of the file does not follow from its ending.",
            "Set data.format=jsonl (or csv, tsv, parquet, conll).",
        )
    if file_format == "parquet":
        rows = _read_parquet(path, address)
    elif file_format == "jsonl":
        rows = _read_jsonl(_lines(path, address), address)
    elif file_format == "conll":
        rows = read_conll(_lines(path, address), address, data)
    else:
        delimiter = "," if file_format == "csv" else "\t"
        rows = _read_table(_lines(path, address), address, delimiter, data)
    if not rows.records:
        raise DataError(f"{address} has no rows.")
    return rows


def read_hub(data: DataSection, split: str, wanted: Sequence[str]) -> Rows:
    """Read one split of `data.hub`: those of the columns `wanted` that it has.

    Raises:
        DataError: the Hub cannot be reached, or has no such data set, config or split; a split
            without rows.
    """
    assert data.hub is not None
    source = f"{data.hub}{f' ({data.config})' if data.config else ''}, split {split}"
    try:
        with quiet():
            dataset = datasets.load_dataset(
                data.hub, data.config, split=split, revision=data.revision
            )
    # The errors of this call come from several libraries without a common base class.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{source} could not be read from the Hub: {reason}",
            "Without a network, give local files: data.train=train.jsonl data.validation=dev.jsonl",
        ) from error
    if len(dataset) == 0:
        raise DataError(f"{source} has no rows.")
    columns = dataset.column_names
    records = dataset.select_columns([name for name in columns if name in wanted]).to_list()
    names = _class_names(dataset.features)
    return Rows(records, columns, source, published=True, class_names=names)


def _lines(path: Path, source: str) -> Iterator[str]:
    # Split as bytes, only at newlines: texts may contain U+2028 and the like.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{source}, line {number}: not UTF-8 (byte {error.start + 1} of the line is"
                    f" 0x{line[error.start]:02x}).",
                    "Convert the file, for example: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW",
                ) from None


def _read_jsonl(lines: Iterator[str], source: str) -> Rows:
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    columns: dict[str, None] = {}  # an ordered set
    hint = "Each line of a jsonl file is one JSON object: the row, by column name."
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.rstrip())
        except json.JSONDecodeError as error:
            raise DataError(
                f"{source}, line {number}: malformed JSON at character {error.colno}"
                f" ({error.msg}).",
                hint,
            ) from None
        if not isinstance(record, dict):
            raise DataError(
                f"{source}, line {number}: not a JSON object: {format_value(record)}.", hint
            )
        records.append(record)
        numbers.append(number)
        columns |= dict.fromkeys(record)
    return Rows(records, list(columns), source, numbers)


def _read_table(lines: Iterator[str], source: str, delimiter: str, data: DataSection) -> Rows:
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
            if row:  # an empty line has no fields
                rows.append(row)
                numbers.append(end + 1)
            end = reader.line_num
    except csv.Error as error:
        raise DataError(
            f"{source}, row from line {end + 1}: {error}.",
            "If quotation marks are part of the texts, set data.quoting=false.",
        ) from None
    columns = data.columns
    if columns is None:
        columns, rows, numbers = (rows or [[]])[0], rows[1:], numbers[1:]
    if len(set(columns)) < len(columns):
        raise DataError(f"{source}: a column name is used twice: {', '.join(columns)}.")
    records = [dict(zip(columns, row, strict=False)) for row in rows]
    table = Rows(records, columns, source, numbers)
    problems = [
        "" if len(row) == len(columns) else f"{len(row)} instead of {len(columns)}" for row in rows
    ]
    hint = f"Each row needs one field per column ({', '.join(columns)})."
    table.raise_for(problems, "wrong number of fields", hint)
    return table


def _read_parquet(path: Path, source: str) -> Rows:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{source} is not a readable parquet file: {error}") from error
    names: dict[str, list[str]] = {}
    if b"huggingface" in (table.schema.metadata or {}):  # written by the datasets library
        names = _class_names(datasets.Features.from_arrow_schema(table.schema))
    return Rows(table.to_pylist(), table.column_names, source, class_names=names)


def _class_names(features: datasets.Features) -> dict[str, list[str]]:
    """Return the class names of columns that hold class numbers, or lists of them."""
    items = {column: getattr(feature, "feature", feature) for column, feature in features.items()}
    return {
        column: list(item.names)
        for column, item in items.items()
        if isinstance(item, datasets.ClassLabel) and item.names
    }


def read_chunks(
    source: Any, data: DataSection, txt_format: str | None, size: int
) -> Iterator[Rows]:
    """Stub."""
    yield read_file(source, data, txt_format)
