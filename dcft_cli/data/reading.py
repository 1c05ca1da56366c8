"""Read rows from local files (jsonl, csv, tsv, parquet, conll), streams, and Hub data sets.

Text files are read line by line, so that errors can name the line.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import PurePath
from typing import Any, BinaryIO

import datasets
import pyarrow.parquet  # type: ignore[import-untyped]

from dcft_cli.addresses import local_path
from dcft_cli.data.conll import read_conll, read_conllu
from dcft_cli.data.json_files import read_json
from dcft_cli.data.lines import decode_lines
from dcft_cli.data.quiet import quiet
from dcft_cli.data.rows import BadRow, Record, Rows, check_names
from dcft_cli.data.tables import read_table
from dcft_cli.errors import DataError
from dcft_cli.recipe.schema import FILE_FORMATS, DataSection

_DELIMITERS = {"csv": ",", "tsv": "\t"}
_PARQUET_BATCH = 1024
_OTHER_FORMATS = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "Save the sheet as a CSV file (UTF-8)."),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip"), "Decompress it first."),
}
"""What to do with files that people have, but that are not read; by their endings."""


def read_file(address: str, data: DataSection, txt_format: str | None = None) -> Rows:
    """Read a local file, or one inside an installed package (`package://`).

    Rows that cannot be read are among the problems of the result.

    Args:
        address: of the file.
        data: the format, if it does not follow from the ending, and the columns.
        txt_format: format of files that end in .txt; None if it is unknown.

    Raises:
        DataError: a file that is missing, of unknown format, malformed (with the line), or
            without rows.
        UserError: the package of a `package://` address is not installed.
    """
    for rows in read_chunks(address, data, txt_format, None):
        if not rows.records:
            rows.raise_problems()
        else:
            return rows
    raise DataError(f"{address} has no rows.")


def read_chunks(
    source: str | BinaryIO, data: DataSection, txt_format: str | None, size: int | None
) -> Iterator[Rows]:
    """Yield the rows of a file or stream in chunks of at most `size` rows; None: in one.

    Blank rows count, but are not among the records. Only one chunk is held in memory, unless the
    file is a JSON array or SQuAD's. `Rows.raise_problems` reports rows that cannot be read.

    Args:
        source: the address of a file, as for `read_file`, or a binary stream such as
            `sys.stdin.buffer`, whose format `data.format` names.
        data: the format, if it does not follow from the ending, and the columns.
        txt_format: format of files that end in .txt; None if it is unknown.

    Raises:
        DataError: as `read_file`, but none for a file without rows.
    """
    name = source if isinstance(source, str) else "standard input"
    with _opened(source, name) as file, ExitStack() as stack:
        file_format = _format_of(name if isinstance(source, str) else "", name, data, txt_format)
        if file_format == "parquet" and not file.seekable():  # its description is at the end
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, copy)
            file = copy
        content = _content(file, name, file_format, data)
        numbered = enumerate(content.rows, start=1)
        while chunk := list(islice(numbered, size)):
            yield Rows.collect(
                chunk,
                content.columns,
                name,
                content.class_names,
                namable=file_format not in ("jsonl", "parquet", "text"),
            )


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
    kept = dataset.select_columns([name for name in columns if name in wanted])
    records = list(map(_without_decimals, kept.to_list()))
    names = _class_names(dataset.features)
    return Rows(records, columns, source, published=True, class_names=names)


@dataclass(frozen=True)
class _Content:
    """An open file. Its columns may grow while its rows are read."""

    columns: list[str]
    rows: Iterator[Record | BadRow]
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)


def _format_of(address: str, name: str, data: DataSection, txt_format: str | None) -> str:
    suffix = PurePath(address).suffix.lower()
    found = data.format or {**FILE_FORMATS, ".txt": txt_format}.get(suffix)
    if found is None:
        raise DataError(
            f"{name}: the format of the file does not follow from its ending.",
            _OTHER_FORMATS.get(
                suffix, "Set data.format=jsonl (or csv, tsv, parquet, conll, conllu)."
            ),
        )
    return found


@contextmanager
def _opened(source: str | BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Open a file for reading, and name it in errors of the operating system."""
    try:
        if not isinstance(source, str):
            yield source
            return
        path = local_path(source)
        if path.is_dir() or not path.exists():
            what = "is a folder, not a file" if path.is_dir() else "does not exist"
            raise DataError(f"The data file {source} {what}.", f"Looked for {path.absolute()}.")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(
            f"The data file {name} cannot be read: {error.strerror or error}.",
            "Check its name and its permissions.",
        ) from error


def _content(file: BinaryIO, name: str, file_format: str, data: DataSection) -> _Content:
    if file_format == "parquet":
        return _parquet(file, name)
    lines = decode_lines(file, name)
    if file_format == "text":  # one per line, to be predicted
        assert data.text
        (column,) = data.text
        numbered = enumerate(lines, start=1)
        return _Content(
            [column], (Record(number, {column: line.rstrip("\r\n")}) for number, line in numbered)
        )
    if file_format == "jsonl":
        columns: list[str] = []
        return _Content(columns, read_json(lines, name, columns))
    if file_format == "conll":
        return _Content(*read_conll(lines, data))
    if file_format == "conllu":
        return _Content(*read_conllu(lines, data))
    return _Content(*read_table(lines, name, data, _DELIMITERS[file_format]))


def _parquet(file: BinaryIO, name: str) -> _Content:
    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        schema = parquet.schema_arrow
        names: dict[str, list[str]] = {}
        if b"huggingface" in (schema.metadata or {}):  # written by the datasets library
            names = _class_names(datasets.Features.from_arrow_schema(schema))
    except Exception as error:  # damaged metadata can raise any exception
        raise _damaged_parquet(name, error) from error
    check_names(schema.names, name)

    def rows() -> Iterator[Record]:
        try:
            for batch in parquet.iter_batches(batch_size=_PARQUET_BATCH):
                for values in batch.to_pylist():
                    yield Record(None, _without_decimals(values))
        except Exception as error:  # such as texts that are not UTF-8
            raise _damaged_parquet(name, error) from error

    return _Content(list(schema.names), rows(), names)


def _without_decimals(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with plain numbers in place of decimals, which are no labels."""
    return {
        column: _number(value) if isinstance(value, Decimal) else value
        for column, value in values.items()
    }


def _number(value: Decimal) -> int | float:
    return int(value) if value == int(value) else float(value)


def _damaged_parquet(name: str, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    return DataError(f"{name} is not a readable parquet file: {reason}", "Write it again.")


def _class_names(features: datasets.Features) -> dict[str, list[str]]:
    """Return the class names of columns that hold class numbers, or lists of them."""
    items = {column: getattr(feature, "feature", feature) for column, feature in features.items()}
    return {
        column: list(item.names)
        for column, item in items.items()
        if isinstance(item, datasets.ClassLabel) and item.names
    }
