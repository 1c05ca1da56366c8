"""Rows of token classification: the words of a sentence, and a label for each."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset, Features, List, Value

from dcft_cli.data.labels import LabelColumn
from dcft_cli.data.lists import written_list
from dcft_cli.data.rows import Rows, format_value

_FEATURES = Features(
    {
        "text": Value("string"),
        "words": List(Value("string")),
        "labels": List(Value("int64")),
    }
)


def prepare_sentences(
    rows: Rows, words: str, label: str, labels: Sequence[str], order: Sequence[str]
) -> Dataset:
    """Check rows and put them into the columns `text` (all words), `words` and `labels`.

    Args:
        labels, order: of `LabelColumn.class_numbers`.

    Raises:
        DataError: a missing column; a row without words; a word that is not a text, or empty;
            another number of labels than of words; an unknown label.
    """
    sentences = _lists(rows, words, "data.text")
    _check_words(rows, words, sentences)
    column = label_column(rows, label)
    problems = [
        f"`{label}` has {len(tags):,} labels for {len(sentence):,} words in `{words}`"
        if isinstance(sentence, list) and tags and len(sentence) != len(tags)
        else ""
        for sentence, tags in zip(sentences, column.values, strict=True)
    ]
    rows.report(problems, "labels that do not match the words", "Every word needs one label.")
    numbers = column.class_numbers(labels, order)
    rows.raise_problems()
    columns = {
        "text": [" ".join(sentence) for sentence in sentences],
        "words": sentences,
        "labels": numbers,
    }
    return Dataset.from_dict(columns, features=_FEATURES)


def prepare_words(rows: Rows, words: str) -> Dataset:
    """Check rows without labels and put them into the columns `text` and `words`.

    A row has a list of words, or a text that is split at white space.

    Raises:
        DataError: a missing column; a row without words; a word that is not a text, or empty.
    """
    given, read = rows.values(words, "data.text"), _lists(rows, words, "data.text")
    values = [
        text if isinstance(text, str) and not _has_words(value) else value
        for text, value in zip(given, read, strict=True)
    ]
    sentences: list[Any] = [v.split() if isinstance(v, str) else v for v in values]
    _check_words(rows, words, sentences)
    rows.raise_problems()
    columns = {
        "text": [
            value if isinstance(value, str) else " ".join(sentence)
            for value, sentence in zip(values, sentences, strict=True)
        ],
        "words": sentences,
    }
    return Dataset.from_dict(columns, features=Features({n: _FEATURES[n] for n in columns}))


def word_spans(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Return first character and end of each word in the text of a prepared row."""
    spans, start = [], 0
    for word in words:
        start = text.index(word, start)
        spans.append((start, start + len(word)))
        start += len(word) + 1  # at least one character separates words
    return spans


def label_column(rows: Rows, column: str) -> LabelColumn:
    """Return the lists of labels in `column`, and report rows without one.

    Raises:
        DataError: there is no such column.
    """
    values = _lists(rows, column, "data.label")
    rows.check(
        column,
        values,
        lambda value: "" if isinstance(value, list) else f"is {format_value(value)}",
        "no list of labels",
        "Every word needs one label.",
    )
    lists = [value if isinstance(value, list) else [] for value in values]
    hint = "The label of a word is a text or a whole number."
    return LabelColumn(rows, column, lists, "word {number} is {value}", hint)


def _lists(rows: Rows, column: str, setting: str) -> list[Any]:
    """Return the values of a column, with the lists that csv files hold as texts."""
    values = rows.values(column, setting)
    found = [written_list(value) if isinstance(value, str) else None for value in values]
    return [v if read is None else read for v, read in zip(values, found, strict=True)]


def _has_words(value: object) -> bool:
    """Return whether a list has words: the text [1] has none, it is a mark."""
    return isinstance(value, list) and any(isinstance(word, str) for word in value)


def _check_words(rows: Rows, column: str, sentences: Sequence[object]) -> None:
    rows.check(
        column,
        sentences,
        lambda value: _words_problem(rows, value),
        "no usable words",
        'Each row needs a list of words, such as ["She", "lives", "here"].',
    )


def _words_problem(rows: Rows, value: object) -> str:
    if not isinstance(value, list):
        return "is missing" if value is None else f"is {format_value(value)}, not a list"
    if not value and not rows.published:
        return "is empty"
    for number, word in enumerate(value, start=1):
        blank = isinstance(word, str) and word.isspace()  # tokenizers leave some line breaks
        if not blank and (problem := rows.text_problem(word)):
            return f"word {number} {problem}"
    return ""
