"""Tables of text: csv, tsv, and other files with a delimiter between columns."""

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence

from dcft_cli.data.rows import BadRow, Record, check_names, format_value
from dcft_cli.errors import DataError
from dcft_cli.recipe.schema import DataSection

MAX_QUOTED_LINES = 10_000
"""Lines of one field beyond which a quotation mark counts as unclosed."""

_TAB = "\t"
_DELIMITERS = {";": '";"', _TAB: r'"\t"', "|": '"|"', ",": '","'}
"""Common delimiters, as the shell takes them."""
_QUOTED = re.compile(r'"((?:[^"]++|"")*+)"')
_PROBLEMS = {
    "end of data": "a quotation mark does not close",
    "new-line": "a carriage return in a field without quotation marks",
    "": "a quoted field goes on after its closing quotation mark",
}
"""By a part of the csv module's message."""
_UNQUOTED = "If quotation marks are part of the texts, set data.quoting=false."


def read_table(
    lines: Iterator[str], source: str, data: DataSection, default_delimiter: str
) -> tuple[list[str], Iterator[Record | BadRow]]:
    """Return the columns of a table and an iterator over its rows.

    Columns without a name, as spreadsheets leave them, are dropped; values in such a column at
    the end are an error.

    Args:
        data: its `columns` names the columns, else the first row does; `delimiter`; `quoting`.

    Raises:
        DataError: at once, if the columns cannot be named; while iterating, if a quoted field
            does not end where a field may end.
    """
    rows = _Splitter(lines, source, data.delimiter or default_delimiter, data.quoting)
    header = data.columns
    if header is None:
        header = [name.strip() for name in next(iter(rows), (0, []))[1]]
        _check_header(header, source, rows.delimiter, chosen=data.delimiter is not None)
    named = [name for name in header if name]
    check_names(named, source)
    rows.width = len(header)
    return named, _records(rows, header)


def _records(rows: "_Splitter", header: Sequence[str]) -> Iterator[Record | BadRow]:
    width = max((n for n, name in enumerate(header, start=1) if name), default=0)
    named = [name for name in header if name]
    for line, fields in rows:
        if not any(field.strip() for field in fields):
            yield Record(line, {})
        elif [field.strip() for field in fields] == header:
            detail = "names the columns"
            yield BadRow(line, "the header line again", detail, "Remove these lines.")
        elif not width <= len(fields) <= len(header):
            expected = f"{len(fields)} instead of {len(header)}"
            hint = f"Each row needs one field per column ({', '.join(named)})."
            yield BadRow(
                line, "wrong number of fields", expected, hint + _other_delimiter(rows, fields)
            )
        elif extra := next((field for field in fields[width:] if field.strip()), ""):
            yield BadRow(
                line,
                "a value in a column without a name",
                format_value(extra),
                "Name the column, or quote fields that contain the delimiter.",
            )
        else:
            pairs = zip(header, fields, strict=False)
            yield Record(line, {name: field for name, field in pairs if name})


def _check_header(header: Sequence[str], source: str, delimiter: str, *, chosen: bool) -> None:
    if any("\r" in name.replace("\r\n", "") for name in header):
        raise DataError(
            f"{source}: lines end in carriage returns only, as on old Macs.",
            r"Convert it: tr '\r' '\n' < OLD > NEW",
        )
    if len(header) != 1 or chosen:
        return
    text = header[0]
    for other, value in _DELIMITERS.items():
        if other != delimiter and other in text:
            name = "a tab" if other == _TAB else format_value(other)
            raise DataError(
                f"{source}: the header line has {name} between its columns, not"
                f" {'a tab' if delimiter == _TAB else format_value(delimiter)}:"
                f" {format_value(text)}.",
                f"Set data.delimiter={value}.",
            )


def _other_delimiter(rows: "_Splitter", fields: Sequence[str]) -> str:
    """Return a hint if a row has the right number of fields with another delimiter."""
    text = rows.delimiter.join(fields)
    for other, value in _DELIMITERS.items():
        if other != rows.delimiter and text.count(other) == rows.width - 1 > 0:
            return f" If {format_value(other)} separates them, set data.delimiter={value}."
    return ""


class _Splitter:
    """Split lines into the fields of rows, each with the line where it starts.

    A field that begins with a quotation mark ends at the next one that is not doubled, which may
    be on a later line. Unless `quoting` says that this is always or never so:

    - With tabs between columns, a line with the right number of fields is a row, and quotation
      marks count only around whole fields: few programs quote in tsv files. A quoted last field
      may still go on in the next lines, if these are no rows themselves.
    - With other delimiters, a field over several lines that all look like rows is an error.

    Attributes:
        width: number of columns; 0 until it is known.
    """

    def __init__(
        self, lines: Iterator[str], source: str, delimiter: str, quoting: bool | None
    ) -> None:
        self.delimiter = delimiter
        self.width = 0
        self._source = source
        self._quoting = quoting
        self._lenient = quoting is None and delimiter == _TAB
        self._lines = lines
        self._waiting: deque[str] = deque()
        self._number = 0

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        while (line := self._take()) is not None:
            if line.strip("\r\n"):
                yield self._number, self._split(line)

    def _take(self) -> str | None:
        line = self._waiting.popleft() if self._waiting else next(self._lines, None)
        self._number += line is not None
        return line

    def _split(self, line: str) -> list[str]:
        """Return the fields of the row that starts with a line, and take the lines it needs."""
        if self._quoting is False or '"' not in line:
            return self._plain(line)
        before: list[str] = []
        text = line
        if self._lenient and self._is_row(line):
            *others, last = self._plain(line)
            before = list(map(_unquoted, others))
            if not last.startswith('"') or _QUOTED.fullmatch(last):
                return [*before, _unquoted(last)]
            text = line[line.rindex(self.delimiter) + 1 :] if others else line
        first, taken = self._number, [line]
        reader = csv.reader(self._lines_from(text, taken), delimiter=self.delimiter, strict=True)
        limit = csv.field_size_limit(2**31 - 1)  # of the whole process
        try:
            fields = next(reader)
        except csv.Error as error:
            problem = next(text for part, text in _PROBLEMS.items() if part in str(error))
            return self._as_it_is(taken, first, problem)
        finally:
            csv.field_size_limit(limit)
        if len(taken) > 1 and self._quoting is None and self._could_be_rows(taken):
            raise DataError(
                f"{self._source}, line {first}: a quoted field runs over {len(taken)} lines, each"
                " of which could be a row.",
                "If quotation marks are part of the texts, set data.quoting=false; if the field"
                " has several lines, data.quoting=true.",
            )
        return before + fields

    def _lines_from(self, text: str, taken: list[str]) -> Iterator[str]:
        """Yield `text` and the lines after it, up to the first that can be no part of its field.

        Args:
            taken: gets the lines after it.
        """
        yield text
        while (line := self._take()) is not None:
            taken.append(line)
            if len(taken) > MAX_QUOTED_LINES or self._are_rows(taken):
                return
            yield line

    def _as_it_is(self, taken: list[str], first: int, problem: str) -> list[str]:
        """Return the fields of the first line, quotation marks included, and put back the others.

        Raises:
            DataError: `problem`, unless tabs separate the columns.
        """
        ambiguous = self.width == 1 and len(taken) > 1
        if not self._lenient or ambiguous:
            other = " If the field has several lines, set data.quoting=true." * self._lenient
            raise DataError(f"{self._source}, row from line {first}: {problem}.", _UNQUOTED + other)
        self._waiting.extendleft(reversed(taken[1:]))
        self._number = first
        return list(map(_unquoted, self._plain(taken[0])))

    def _are_rows(self, taken: Sequence[str]) -> bool:
        """Return whether the first and the last line are rows, and so no parts of one.

        Only if tabs separate the columns: within texts, they are rare.
        """
        return self._lenient and self._is_row(taken[0]) and self._is_row(taken[-1])

    def _is_row(self, line: str) -> bool:
        """Return whether a line has the right number of fields if quotation marks mean nothing."""
        return len(self._plain(line)) == self.width

    def _could_be_rows(self, taken: Sequence[str]) -> bool:
        """Return whether all lines have the right number of fields, and most look like rows.

        In a text, a blank or the end of the line follows a comma. So a line of a text with one
        comma may end in it, but one with several commas has a blank after the first of them.
        """
        rows = list(map(self._plain, taken))
        like_rows = sum(
            not any(field[:1].isspace() for field in fields)
            and (self.width > 2 or bool(fields[-1]))
            for fields in rows
        )
        return self.width > 1 and all(map(self._is_row, taken)) and 2 * like_rows > len(rows)

    def _plain(self, line: str) -> list[str]:
        return line.rstrip("\r\n").split(self.delimiter)


def _unquoted(field: str) -> str:
    match = _QUOTED.fullmatch(field)
    return match[1].replace('""', '"') if match else field
