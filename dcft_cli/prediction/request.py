"""What `dcft predict` is asked: rows of a file, of standard input, or of the command line."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePath

from dcft_cli.addresses import local_path
from dcft_cli.data.reading import read_chunks
from dcft_cli.data.rows import Rows
from dcft_cli.data.writing import check_output
from dcft_cli.errors import DataError, UserError
from dcft_cli.prediction.inputs import rows_of
from dcft_cli.processes import process_count
from dcft_cli.recipe import DataSection, is_file_address
from dcft_cli.tasks.base import Task

CHUNK_ROWS = 1024
"""Rows that are held at once; batches are made by length among them."""

STDIN = "-"


@dataclass(frozen=True)
class Request:
    """Which rows to predict, and where to write them.

    Attributes:
        file: path or `package://` address of the rows, or "-" for standard input.
        texts, pairs: instead of a file, the texts of rows, and the second ones of pairs.
        file_format: None: by the ending of the file, else the recipe's; standard input is jsonl.
        output: its ending names the format; None: lines of JSON on stdout.

    Raises:
        DataError: there is no such file.
        UserError: neither a file nor texts, or both; an output that cannot be written, or is the
            input; several processes (torchrun) that would share standard input or stdout.
    """

    file: str | None
    texts: Sequence[str] = ()
    pairs: Sequence[str] = ()
    file_format: str | None = None
    output: Path | None = None

    def __post_init__(self) -> None:
        if (self.file is None) != bool(self.texts):
            problem = "There is nothing to predict" if self.file is None else "A file and --text"
            raise UserError(f"{problem}.", "Name a file, - for standard input, or --text TEXT.")
        if self.file == STDIN and sys.stdin is None:
            raise UserError("Standard input is closed.", "Name a file, or pipe rows in.")
        path = local_path(self.file or STDIN)
        if self.rereadable and not path.is_file():
            raise DataError(f"There is no file {self.file}.", f"Looked for {path.absolute()}.")
        if self.output is not None:
            check_output(self.output)
            if self.output.exists() and path.exists() and self.output.samefile(path):
                raise UserError(f"{path} would be overwritten.", "Name another --output.")
        if process_count() > 1 and (self.output is None or self.file == STDIN):
            raise UserError(
                "Several processes cannot share standard input or stdout.",
                "Name a file of rows, and --output FILE.",
            )

    @property
    def rereadable(self) -> bool:
        """Whether the rows can be read twice, to be checked before the first is predicted."""
        return self.file is not None and self.file != STDIN

    def read(self, data: DataSection, task: Task) -> Iterator[Rows]:
        """Yield the rows in chunks.

        Args:
            data: of the recipe: columns, and format where nothing else names it.

        Raises:
            DataError: rows that cannot be read; names them.
            UserError: a task that takes pairs gets single texts, or the other way round.
        """
        if self.file is None:
            yield self._read_texts(task)
            return
        file_format = self.file_format or _format_of(self.file, data, task)
        if file_format == "text" and len(task.text) > 1:
            raise UserError(
                f"This adapter takes pairs of texts ({', '.join(task.text)}), not one per line.",
                "Give them as jsonl, csv, tsv or parquet.",
            )
        section = data.model_copy(update={"format": file_format, "text": list(task.text)})
        source = sys.stdin.buffer if self.file == STDIN else self.file
        yield from read_chunks(source, section, task.txt_format, CHUNK_ROWS)

    def _read_texts(self, task: Task) -> Rows:
        columns = " and ".join(f"`{name}`" for name in task.text)
        if len(task.text) == 1 and self.pairs:
            raise UserError(f"This adapter takes one text, {columns}.", "Leave --text-pair out.")
        if len(task.text) == 2 and len(self.pairs) != len(self.texts):
            raise UserError(
                f"This adapter takes pairs of texts, {columns}.",
                "Give each --text TEXT its --text-pair TEXT.",
            )
        pairs = list(zip(self.texts, self.pairs, strict=True)) if self.pairs else self.texts
        return rows_of(pairs, task.text)


def _format_of(file: str, data: DataSection, task: Task) -> str | None:
    if file == STDIN:
        assert isinstance(sys.stdin.buffer, BufferedReader)
        beginning = sys.stdin.buffer.peek().lstrip()
        if data.format is None and beginning and beginning[:1] not in (b"{", b"["):
            raise DataError(
                "Standard input is not JSON.",
                "Name its format: --format text (one text per line), csv, tsv, parquet or conll.",
            )
        return data.format or "jsonl"
    if is_file_address(PurePath(file).name):  # by its ending
        return None
    plain = PurePath(file).suffix.lower() == ".txt" and task.txt_format is None
    return data.format or ("text" if plain else None)
