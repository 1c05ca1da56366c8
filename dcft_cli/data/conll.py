"""CoNLL column files: one word per line, with its label; a blank line ends a sentence.

The format of the shared tasks of 2000 to 2003 (Tjong Kim Sang and others), and CoNLL-U of
Universal Dependencies (https://universaldependencies.org/format.html).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from dcft_cli.data.rows import BadRow, Record, format_value
from dcft_cli.recipe.schema import DataSection

WORDS_COLUMN = "tokens"
LABELS_COLUMN = "ner_tags"
CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

SAMPLE_LINES = 10_000
"""Lines at the beginning of a file that tell its delimiter and its number of columns."""

_BLANKS = re.compile(r"[ \t]+")
_DOCUMENT = "-DOCSTART-"
_NOT_A_WORD = re.compile(r"\d+[-.]\d+")
"""Id of a CoNLL-U line that is no word: a range (the text of several words), or an empty node."""

_Split = Callable[[str], list[str]]


class _Line(NamedTuple):
    number: int
    fields: list[str]


def read_conll(
    lines: Iterator[str], data: DataSection
) -> tuple[list[str], Iterator[Record | BadRow]]:
    """Return the columns, and sentences as rows; each column is a list with one entry per word.

    Lines that start with -DOCSTART- are skipped, and so are comments: lines that start with #
    and have another number of columns than most lines. Columns are separated by tabs if most
    lines have one, else by blanks. The first 10,000 lines tell what most lines have.

    Args:
        data: its `columns` names the columns. By default the first is the column of words and
            the last that of labels, under the names that `text` and `label` give them. If they
            are named as in CoNLL-U, its rules for ids and empty values apply.
    """
    sample = list(islice(lines, SAMPLE_LINES))
    words = [line for line in sample if line.strip()]
    tabs = 2 * sum("\t" in line for line in words) > len(words)
    split = _split_at_tabs if tabs else _split_at_blanks
    widths = Counter(len(split(line)) for line in words if not line.startswith(_DOCUMENT))
    width = widths.most_common(1)[0][0] if widths else 0
    columns = data.columns or _default_columns(width, data)
    sentences = _sentences(chain(sample, lines), split, width)
    if _is_conllu(columns):
        rows = (_conllu_row(sentence, columns) for sentence in sentences)
        return list(dict.fromkeys([*columns, WORDS_COLUMN])), rows
    return columns, (_row(sentence, columns) for sentence in sentences)


def read_conllu(
    lines: Iterator[str], data: DataSection
) -> tuple[list[str], Iterator[Record | BadRow]]:
    """Return the columns of a CoNLL-U file, and its sentences as rows.

    Ranges of words (`3-4`) and empty nodes (`5.1`) are skipped; `_` means that there is no value.

    Args:
        data: its `text` names the column of words; by default that is another name of `form`.
    """
    columns = list(data.columns or CONLLU_COLUMNS)
    sentences = _sentences(lines, _split_at_tabs, len(columns))
    rows = (_conllu_row(sentence, columns) for sentence in sentences)
    return list(dict.fromkeys([*columns, WORDS_COLUMN])), rows


def _default_columns(width: int, data: DataSection) -> list[str]:
    words = data.text[0] if data.text else WORDS_COLUMN
    label = data.label if isinstance(data.label, str) else LABELS_COLUMN
    others = [f"column_{number}" for number in range(2, width)]
    return [words, *others, label] if width > 1 else [words]


def _is_conllu(columns: Sequence[str]) -> bool:
    names = [name.lower() for name in columns]
    return names[:2] == list(CONLLU_COLUMNS[:2])


def _row(sentence: Sequence[_Line], columns: Sequence[str]) -> Record | BadRow:
    for line in sentence:
        if len(line.fields) != len(columns):
            text = format_value(" ".join(line.fields))
            return BadRow(
                sentence[0].number,
                "wrong number of columns",
                f"line {line.number}: {len(line.fields)} instead of {len(columns)}, {text}",
                f"Each line has the columns {', '.join(columns)}; a blank line ends a sentence.",
            )
    by_column = map(list, zip(*(line.fields for line in sentence), strict=True))
    return Record(sentence[0].number, dict(zip(columns, by_column, strict=True)))


def _conllu_row(sentence: Sequence[_Line], columns: Sequence[str]) -> Record | BadRow:
    words = [line for line in sentence if not _NOT_A_WORD.fullmatch(line.fields[0])]
    row = _row(words or sentence, columns)
    if isinstance(row, BadRow):
        return row
    # A form or lemma may be an underscore.
    texts = [name for name in columns if name.lower() in ("form", "lemma")]
    values = {
        name: column if name in texts else [None if value == "_" else value for value in column]
        for name, column in row.values.items()
    }
    return Record(row.line, values | {WORDS_COLUMN: values[columns[1]]})


def _split_at_tabs(line: str) -> list[str]:
    return [field.strip(" ") for field in line.rstrip("\r\n").split("\t")]


def _split_at_blanks(line: str) -> list[str]:
    return _BLANKS.split(line.rstrip("\r\n").strip(" \t"))


def _sentences(lines: Iterator[str], split: _Split, width: int) -> Iterator[list[_Line]]:
    """Split the lines of a file at blank lines and at starts of documents; leave out comments."""
    sentence: list[_Line] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(_DOCUMENT):
            if sentence:
                yield sentence
            sentence = []
            continue
        fields = split(line)
        if len(fields) == width or not line.startswith("#"):
            sentence.append(_Line(number, fields))
    if sentence:
        yield sentence
