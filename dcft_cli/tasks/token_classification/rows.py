"""Rows of token classification: the words of a sentence, and a label for each."""

from collections.abc import Sequence

from datasets import Dataset, Features, List, Value

from dcft_cli.data.labels import LabelColumn
from dcft_cli.data.rows import Rows, format_value

_FEATURES = Features(
    {
        "text": Value("string"),
        "words": List(Value("string")),
        "labels": List(Value("int64")),
    }
)


def prepare_sentences(rows: Rows, words: str, label: str, labels: Sequence[str]) -> Dataset:
    """Check rows and put them into the columns `text` (all words), `words` and `labels`.

    Args:
        rows: as they were read.
        words: name of the column of words.
        label: name of the column of labels.
        labels: class names in the order of their numbers.

    Raises:
        DataError: a missing column; a row without words; a word that is not a text, or empty;
            another number of labels than of words; an unknown label.
    """
    sentences = _word_lists(rows, words)
    column = label_column(rows, label)
    problems = [
        (index, f"`{label}` has {len(tags):,} labels for {len(sentence):,} words in `{words}`")
        for index, (sentence, tags) in enumerate(zip(sentences, column.values, strict=True))
        if len(sentence) != len(tags)
    ]
    rows.raise_for(problems, "labels that do not match the words", "Every word needs one label.")
    columns = {
        "text": [" ".join(sentence) for sentence in sentences],
        "words": sentences,
        "labels": column.class_numbers(labels),
    }
    return Dataset.from_dict(columns, features=_FEATURES)


def label_column(rows: Rows, column: str) -> LabelColumn:
    """Return the lists of labels in `column`.

    Raises:
        DataError: there is no such column, or a row without a list.
    """
    values = rows.checked_values(
        column,
        "data.label",
        lambda value: "" if isinstance(value, list) else f"is {format_value(value)}",
        "no list of labels",
        "Every word needs one label.",
    )
    return LabelColumn(
        rows,
        column,
        values,
        lambda position, value: f"`{column}`, word {position + 1} is {format_value(value)}",
    )


def _word_lists(rows: Rows, column: str) -> list[list[str]]:
    values = rows.values(column, "data.text")
    problems = [
        (index, problem)
        for index, value in enumerate(values)
        if (problem := _problem_with_words(rows, column, value))
    ]
    hint = (
        'Each row needs a list of words, such as ["She", "lives", "here"], which a jsonl, parquet'
        " or conll file can hold, but not a csv or tsv file."
    )
    rows.raise_for(problems, "no usable words", hint)
    return values


def _problem_with_words(rows: Rows, column: str, value: object) -> str:
    if not isinstance(value, list):
        problem = "is missing" if value is None else f"is {format_value(value)}, not a list"
        return f"`{column}` {problem}"
    if not value and not rows.published:
        return f"`{column}` is empty"
    for number, word in enumerate(value, start=1):
        blank = isinstance(word, str) and word.isspace()  # tokenizers leave some line breaks
        if not blank and (problem := rows.text_problem(word)):
            return f"`{column}`, word {number} {problem}"
    return ""
