"""CoNLL column files: one word per line, with its label; a blank line ends a sentence.

The format of the shared tasks of 2000 to 2003 (Tjong Kim Sang and others). Columns are separated
by tabs, or by blanks in lines without a tab.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dcft_cli.data.rows import Rows, format_list, format_value
from dcft_cli.errors import DataError
from dcft_cli.recipe.schema import DataSection

WORDS_COLUMN = "tokens"
LABELS_COLUMN = "ner_tags"

_BLANKS = re.compile(r"[ \t]+")
_DOCUMENT = "-DOCSTART-"


@dataclass(frozen=True)
class _Line:
    number: int
    fields: list[str]
    opens: bool  # starts a sentence, unless it is a comment


def read_conll(lines: Iterator[str], source: str, data: DataSection) -> Rows:
    """Return sentences as rows; each column is a list with one entry per word.

    Lines that start with -DOCSTART- are skipped, and so are comments: lines that start with #
    and have another number of columns than most lines.

    Args:
        lines: of the file.
        source: the file, as errors name it.
        data: its `columns` names the columns. By default the first is the column of words and
            the last that of labels, under the names that `text` and `label` give them.

    Raises:
        DataError: lines with another number of columns than most; a single column; names for
            another number of columns.
    """
    found = list(_lines(lines))
    if not found:
        return Rows([], [], source, [])
    (width, _), *_ = Counter(len(line.fields) for line in found).most_common(1)
    kept = [
        line for line in found if len(line.fields) == width or not line.fields[0].startswith("#")
    ]
    columns = data.columns or _default_columns(width, data)
    if width < 2:
        raise DataError(
            f"{source}: most lines have only one column, such as line {kept[0].number}:"
            f" {format_value(kept[0].fields[0])}.",
            "Each line of a conll file has a word in the first column and its label in the last.",
        )
    problems = [
        f"line {line.number}: {len(line.fields)} instead of {len(columns)},"
        f" {format_value(' '.join(line.fields))}"
        for line in kept
        if len(line.fields) != len(columns)
    ]
    if problems:
        raise DataError(
            "\n".join([f"{source}: wrong number of columns:", *format_list(problems)]),
            f"Each line has the columns {', '.join(columns)}; a blank line ends a sentence.",
        )
    sentences: list[list[_Line]] = []
    opens = True
    for line in found:
        opens = opens or line.opens
        if len(line.fields) != width:
            continue  # a comment; the next line may start the sentence
        if opens:
            sentences.append([])
        sentences[-1].append(line)
        opens = False
    records = [
        {name: [line.fields[n] for line in sentence] for n, name in enumerate(columns)}
        for sentence in sentences
    ]
    return Rows(records, columns, source, [sentence[0].number for sentence in sentences])


def _lines(lines: Iterator[str]) -> Iterator[_Line]:
    whole = list(lines)
    words = [line.strip() for line in whole if line.strip()]
    tabs = 2 * sum("\t" in line for line in words) > len(words)
    opens = True
    for number, line in enumerate(whole, start=1):
        if not line.strip() or line.startswith(_DOCUMENT):
            opens = True
            continue
        yield _Line(number, _fields(line, tabs=tabs), opens)
        opens = False


def _fields(line: str, *, tabs: bool) -> list[str]:
    if tabs and line.startswith("#") and "\t" not in line:
        return [line.strip()]  # a comment, even if it has as many words as there are columns
    if "\t" in line.strip():
        return [field.strip(" ") for field in line.rstrip("\r\n").split("\t")]
    return _BLANKS.split(line.strip(" \t\r\n"))


def _default_columns(width: int, data: DataSection) -> list[str]:
    words = data.text[0] if data.text else WORDS_COLUMN
    label = data.label if isinstance(data.label, str) else LABELS_COLUMN
    return [words, *(f"column_{number}" for number in range(2, width)), label]
