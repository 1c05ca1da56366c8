"""Rows of token classification, checked: the words of a sentence, and a label for each."""

from collections.abc import Sequence

from datasets import Dataset, Features, List, Value

from dcft_cli.data.labels import Say, find_names, read_numbers
from dcft_cli.data.rows import Rows, shown
from dcft_cli.errors import DataError

WORDS_COLUMN = "tokens"
LABELS_COLUMN = "ner_tags"

_FEATURES = Features(
    {
        "text": Value("string"),
        "words": List(Value("string")),
        "labels": List(Value("int64")),
    }
)


def prepare_sentences(rows: Rows, words: str, label: str, labels: Sequence[str]) -> Dataset:
    """Checks rows and puts them into the columns `text` (all words), `words` and `labels`.

    Args:
        rows: as they were read.
        words: name of the column of words.
        label: name of the column of labels.
        labels: class names in the order of their numbers.

    Raises:
        DataError: a missing column; a row without words; a word that is no text, or empty; not as
            many labels as words; an unknown label.
    """
    sentences = _word_lists(rows, words)
    values = _label_lists(rows, label)
    problems = [
        (index, f"`{label}` has {len(tags):,} labels for {len(sentence):,} words in `{words}`")
        for index, (sentence, tags) in enumerate(zip(sentences, values, strict=True))
        if len(sentence) != len(tags)
    ]
    if problems:
        rows.refuse("labels that do not match the words", problems, "Every word needs one label.")
    numbers = read_numbers(rows, label, values, labels, _say(label))
    texts = [" ".join(sentence) for sentence in sentences]
    columns = {"text": texts, "words": sentences, "labels": numbers}
    return Dataset.from_dict(columns, features=_FEATURES)


def find_tags(rows: Rows, label: str) -> tuple[str, ...]:
    """The labels in the column `label`, sorted as `find_names` sorts.

    Raises:
        DataError: no such column; a row without a list; a value that names no class; fewer than
            two classes.
    """
    values = _label_lists(rows, label)
    hint = "The label of a word is a text or a whole number."
    names = find_names(rows, label, values, _say(label), hint)
    if len(names) < 2:
        found = f"every word has the same label, {names[0]}" if names else "no word has a label"
        raise DataError(f"{rows.origin}: {found}.", "A model learns from at least two classes.")
    return names


def _word_lists(rows: Rows, column: str) -> list[list[str]]:
    values = rows.values(column, "data.text")
    problems = [
        (index, problem)
        for index, value in enumerate(values)
        if (problem := _problem_with_words(rows, column, value))
    ]
    if problems:
        hint = (
            'Each row needs a list of words, such as ["She", "lives", "here"]. A jsonl, parquet or'
            " conll file can hold that, a csv or tsv file cannot."
        )
        rows.refuse("no usable words", problems, hint)
    return values


def _problem_with_words(rows: Rows, column: str, value: object) -> str:
    if not isinstance(value, list):
        return f"`{column}` " + ("is missing" if value is None else f"is {shown(value)}, no list")
    if not value and not rows.published:
        return f"`{column}` is empty"
    for number, word in enumerate(value, start=1):
        blank = isinstance(word, str) and word.isspace()  # tokenizers leave some line breaks
        if not blank and (problem := rows.text_problem(word)):
            return f"`{column}`, word {number} {problem}"
    return ""


def _label_lists(rows: Rows, column: str) -> list[list[object]]:
    values = rows.values(column, "data.label")
    problems = [
        (index, f"`{column}` is {shown(value)}")
        for index, value in enumerate(values)
        if not isinstance(value, list)
    ]
    if problems:
        rows.refuse("no list of labels", problems, "Every word needs one label.")
    return values


def _say(column: str) -> Say:
    return lambda place, value: f"`{column}`, word {place + 1} is {shown(value)}"
