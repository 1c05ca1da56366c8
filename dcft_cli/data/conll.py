"""CoNLL column files: one word a line, its label in the last column, a blank line after a sentence.

As of the shared tasks of 2000 to 2003 (Tjong Kim Sang and others); columns are parted by tabs, or
by blanks where a line holds no tab.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dcft_cli.data.rows import Rows, shown, spelled_out
from dcft_cli.errors import DataError
from dcft_cli.recipe.schema import DataSection
from dcft_cli.tasks.sentences import LABELS_COLUMN, WORDS_COLUMN

_BLANKS = re.compile(r"[ \t]+")
_DOCUMENT = "-DOCSTART-"


@dataclass(frozen=True)
class _Line:
    number: int
    fields: list[str]
    opens: bool  # a sentence, if it is no comment


def read_conll(lines: Iterator[str], origin: str, data: DataSection) -> Rows:
    """Sentences as rows, each column a list with one entry a word.

    Lines that start with -DOCSTART- are left out, and so are comments: lines that start with #
    and have not as many columns as the others.

    Args:
        lines: of the file.
        origin: the file, as errors call it.
        data: names of the columns (`columns`). Not set: the first is the column of words, the
            last that of labels, by the names that these have.

    Raises:
        DataError: lines with another number of columns than the others; a single column; names
            for another number of columns.
    """
    found = list(_lines(lines))
    if not found:
        return Rows([], [], origin, [])
    (width, _), *_ = Counter(len(line.fields) for line in found).most_common(1)
    kept = [
        line for line in found if len(line.fields) == width or not line.fields[0].startswith("#")
    ]
    columns = data.columns or _usual_columns(width, data)
    if width < 2:
        raise DataError(
            f"{origin}: most lines have one column alone, such as line {kept[0].number}:"
            f" {shown(kept[0].fields[0])}.",
            "A conll file has a word in the first column of a line and its label in the last.",
        )
    wrong = [
        f"line {line.number}: {len(line.fields)} instead of {len(columns)},"
        f" {shown(' '.join(line.fields))}"
        for line in kept
        if len(line.fields) != len(columns)
    ]
    if wrong:
        raise DataError(
            "\n".join([f"{origin}: wrong number of columns:", *spelled_out(wrong)]),
            f"Every line has {', '.join(columns)}; a blank line ends a sentence.",
        )
    sentences: list[list[_Line]] = []
    opens = True
    for line in found:
        opens = opens or line.opens
        if len(line.fields) != width:
            continue  # a comment; what follows it may be the first word
        if opens:
            sentences.append([])
        sentences[-1].append(line)
        opens = False
    records = [
        {name: [line.fields[n] for line in sentence] for n, name in enumerate(columns)}
        for sentence in sentences
    ]
    return Rows(records, columns, origin, [sentence[0].number for sentence in sentences])


def _lines(lines: Iterator[str]) -> Iterator[_Line]:
    whole = list(lines)
    words = [line.strip() for line in whole if line.strip()]
    tabs = 2 * sum("\t" in line for line in words) > len(words)
    opens = True
    for number, line in enumerate(whole, start=1):
        if not line.strip() or line.startswith(_DOCUMENT):
            opens = True
            continue
        fields = _fields(line, tabs=tabs)
        yield _Line(number, fields, opens)
        opens = False


def _fields(line: str, *, tabs: bool) -> list[str]:
    if tabs and line.startswith("#") and "\t" not in line:
        return [line.strip()]  # a comment, whatever number of words it has
    if "\t" in line.strip():
        return [field.strip(" ") for field in line.rstrip("\r\n").split("\t")]
    return _BLANKS.split(line.strip(" \t\r\n"))


def _usual_columns(width: int, data: DataSection) -> list[str]:
    words = data.text[0] if data.text else WORDS_COLUMN
    label = data.label if isinstance(data.label, str) else LABELS_COLUMN
    between = [f"column_{number}" for number in range(2, width)]
    return [words, *between, label]
