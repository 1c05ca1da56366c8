"""CoNLL column files: one word per line, with its label; a blank line ends a sentence.

The format of the shared tasks of 2000 to 2003 (Tjong Kim Sang and others). Columns are separated
by tabs if most lines have one, else by blanks.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from dcft_cli.data.rows import Rows, format_value
from dcft_cli.errors import DataError
from dcft_cli.recipe.schema import DataSection

WORDS_COLUMN = "tokens"
LABELS_COLUMN = "ner_tags"

_BLANKS = re.compile(r"[ \t]+")
_DOCUMENT = "-DOCSTART-"


class _Line(NamedTuple):
    number: int
    fields: list[str]


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
    found = _sentences([line.rstrip("\r\n") for line in lines])
    widths = Counter(len(line.fields) for line in chain.from_iterable(found))
    if not widths:
        return Rows([], [], source, [])
    ((width, _),) = widths.most_common(1)

    def is_comment(line: _Line) -> bool:
        return len(line.fields) != width and line.fields[0].startswith("#")

    kept = [[line for line in sentence if not is_comment(line)] for sentence in found]
    sentences = [sentence for sentence in kept if sentence]
    words = data.text[0] if data.text else WORDS_COLUMN
    label = data.label if isinstance(data.label, str) else LABELS_COLUMN
    others = [f"column_{number}" for number in range(2, width)]
    columns = data.columns or [words, *others, label]
    if width < 2:
        raise DataError(
            f"{source}: most lines have only one column, such as line {sentences[0][0].number}:"
            f" {format_value(sentences[0][0].fields[0])}.",
            "Each line of a conll file has a word in the first column and its label in the last.",
        )

    def problem(sentence: Sequence[_Line]) -> str:
        for line in sentence:
            if len(line.fields) != len(columns):
                text = format_value(" ".join(line.fields))
                return f"line {line.number}: {len(line.fields)} instead of {len(columns)}, {text}"
        return ""

    by_column = [zip(*(line.fields for line in sentence), strict=False) for sentence in sentences]
    records = [dict(zip(columns, map(list, lists), strict=False)) for lists in by_column]
    rows = Rows(records, columns, source, [sentence[0].number for sentence in sentences])
    hint = f"Each line has the columns {', '.join(columns)}; a blank line ends a sentence."
    rows.raise_for(list(map(problem, sentences)), "wrong number of columns", hint)
    return rows


def _sentences(lines: Sequence[str]) -> list[list[_Line]]:
    """Split the lines of a file at blank lines and at starts of documents."""
    words = [line for line in lines if line.strip()]
    tabs = 2 * sum("\t" in line for line in words) > len(words)
    sentences: list[list[_Line]] = [[]]
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(_DOCUMENT):
            sentences.append([])
        elif tabs:
            sentences[-1].append(_Line(number, [field.strip(" ") for field in line.split("\t")]))
        else:
            sentences[-1].append(_Line(number, _BLANKS.split(line.strip(" \t"))))
    return sentences
