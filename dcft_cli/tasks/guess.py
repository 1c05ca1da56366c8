"""A guess at the task of rows: which columns hold texts and labels, and what is predicted."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dcft_cli.data.columns import Column
from dcft_cli.data.conll import LABELS_COLUMN, WORDS_COLUMN
from dcft_cli.data.rows import Rows, format_value
from dcft_cli.errors import DataError
from dcft_cli.recipe.schema import TaskType

_TEXT_NAMES = (
    "text", "sentence", "review", "comment", "message", "body", "content", "description",
    "document", "tweet", "utterance",
)  # fmt: skip
_LABEL_NAMES = (
    "label", "labels", "class", "category", "categories", "intent", "sentiment", "target", "topic",
    "topics", "tags",
)  # fmt: skip
_PAIRS = (
    ("premise", "hypothesis"), ("question", "sentence"), ("question", "passage"),
    ("question", "context"), ("query", "document"), ("query", "passage"),
)  # fmt: skip
_NUMBERED = re.compile(r"(.*?)[_ ]?(1|2|a|b)")
# A text column is taken without asking if its texts are this many times as long as all others'.
_CLEARLY_LONGER = 4
_MAX_NUMBERED_CLASSES = 20
_FORMS = {
    "question_answering": 'A row is {"question": "...", "context": "...", "answers": {"text":'
    ' ["..."], "answer_start": [0]}}.',
    "token_classification": 'A row is {"tokens": ["...", "..."], "ner_tags": ["O", "B-PER"]}; or'
    " give a conll file.",
}


@dataclass(frozen=True)
class Guess:
    """What rows seem to be for.

    Attributes:
        text, label: names of columns.
        settings: other keys of the data and task sections, dotted.
        reasons: why, by `text` and `label`.
    """

    task: TaskType
    text: tuple[str, ...]
    label: tuple[str, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


def guess_task(
    rows: Rows,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
    task: TaskType | None = None,
) -> Guess:
    """Guess what to predict from what.

    Args:
        text, label, task: what is known already.

    Raises:
        DataError: columns that do not exist; several, or none, that may be the texts or the
            labels. The hint names the flags of `dcft init`.
    """
    columns = {name: Column.of(rows, name) for name in rows.columns}
    for names, flag in ((text, "--text"), (label, "--label")):
        for name in names:
            rows.values(name, flag)
    if task in (None, "question_answering") and (found := _questions(rows, columns, text, label)):
        return found
    if task in (None, "token_classification") and (found := _words(rows, columns, text, label)):
        return found
    if task in _FORMS:
        listed = _listing(columns.values())
        raise DataError(f"{rows.source} has no columns for {task}:{listed}", _FORMS[task])
    texts, why_text = _texts(rows, columns, text, label)
    rest = [column for column in columns.values() if column.name not in texts]
    chosen = [columns[name] for name in label]
    others: Sequence[Column] = ()
    if not chosen:
        chosen, others = _labels(rows, rest, task)
    kind, settings, why_label = _kind_of(chosen, task)
    if others:
        why_label += f"; by its name, not {', '.join(column.name for column in others)}"
    names = tuple(column.name for column in chosen)
    if any(" " in name for name in texts):
        _check_header(rows, chosen)
    return Guess(kind, texts, names, settings, {"text": why_text, "label": why_label})


def _questions(
    rows: Rows, columns: Mapping[str, Column], text: Sequence[str], label: Sequence[str]
) -> Guess | None:
    answers = [c for c in columns.values() if c.is_answers and c.name in (label or columns)]
    if not answers:
        return None
    answer = answers[0] if len(answers) == 1 else columns.get("answers")
    names = tuple(text) or ("question", "context")
    if answer is None or len(names) != 2 or not columns.keys() >= set(names):
        raise _unclear(
            rows,
            columns.values(),
            "questions with answers, but which columns hold the question and its context?",
            "--text QUESTION --text CONTEXT",
        )
    silent = sum(not value.get("text") for value in answer.values)
    settings: dict[str, object] = {"task.unanswerable": True} if silent else {}
    reason = "answers with offsets" + (f"; {silent:,} questions have none" if silent else "")
    return Guess("question_answering", names, (answer.name,), settings, {"label": reason})


def _words(
    rows: Rows, columns: Mapping[str, Column], text: Sequence[str], label: Sequence[str]
) -> Guess | None:
    words = [c for c in columns.values() if c.is_words and c.name in (text or columns)]
    if not words:
        return None
    # Words differ more than their labels.
    first = min(
        words,
        key=lambda c: (
            c.name != WORDS_COLUMN,
            -len({word for value in c.values for word in value}),
        ),
    )
    found = [
        column
        for name, column in columns.items()
        if name != first.name and name in (label or columns) and column.lengths == first.lengths
    ]
    found = [column for column in found if column.name == LABELS_COLUMN] or found
    if len(found) > 1:
        raise _unclear(rows, found, "which are the labels of the words?", "--label COLUMN")
    if not found:
        return None
    reasons = {"text": "lists of words", "label": "one for each word"}
    return Guess("token_classification", (first.name,), (found[0].name,), {}, reasons)


def _texts(
    rows: Rows, columns: Mapping[str, Column], text: Sequence[str], label: Sequence[str]
) -> tuple[tuple[str, ...], str]:
    """Return the text column, or the two of a pair, and why."""
    if text:
        return tuple(text), ""
    free = [c for c in columns.values() if c.name not in label and c.is_text]
    found = (
        [c for c in free if c.is_prose and not c.is_id]
        or [c for c in free if not (c.repeats or c.is_id)]  # words of a lexicon
        or [c for c in free if c.name.lower() in _TEXT_NAMES]
    )
    found.sort(key=lambda column: -column.length)
    if not found:
        raise _unclear(rows, columns.values(), "no column seems to hold texts", "--text COLUMN")
    first, *others = found
    for pair in _pairs([column.name for column in columns.values() if column in found]):
        if first.name in pair:
            return pair, "a pair, by the names"
    why = "the longest texts" if others else "the only texts"
    if others and first.length < _CLEARLY_LONGER * others[0].length:
        named = [column for column in found if column.name.lower() in _TEXT_NAMES]
        if len(named) != 1:
            flags = "--text COLUMN (or two of them for a pair: --text COLUMN --text COLUMN)"
            raise _unclear(rows, found, "several columns may hold the texts", flags)
        (first,) = named
        why = f"by its name, not {', '.join(c.name for c in found if c is not first)}"
    longest = max(len(value) for value in first.values)
    return (first.name,), f"{why}; {first.length:,.0f} characters on average, at most {longest:,}"


def _pairs(names: Sequence[str]) -> Iterable[tuple[str, str]]:
    lower = {name.lower(): name for name in names}
    yield from ((lower[a], lower[b]) for a, b in _PAIRS if a in lower and b in lower)
    by_stem: dict[str, list[str]] = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name.lower()):
            by_stem.setdefault(match[1], []).append(name)
    yield from ((pair[0], pair[1]) for pair in by_stem.values() if len(pair) == 2)


def _labels(
    rows: Rows, columns: Sequence[Column], task: TaskType | None
) -> tuple[list[Column], list[Column]]:
    """Return the label column (or columns of 0 and 1), and others that were possible."""
    found = [c for c in columns if not c.is_id and _possible(c, task)]
    named = [c for name in _LABEL_NAMES for c in found if c.name.lower() == name]
    if named and (len(named) == 1 or named[0].name.lower() == "label"):
        return named[:1], [column for column in found if column is not named[0]]
    binary = [c for c in found if c.is_binary]
    if len(found) == 1 or (len(binary) == len(found) > 1 and task in (None, "multi_label")):
        return found, []
    what = "several columns may hold the labels" if found else "no column seems to hold labels"
    several = " (several for columns of 0 and 1)" if len(binary) > 1 else ""
    raise _unclear(rows, found or columns, what, f"--label COLUMN{several}")


def _possible(column: Column, task: TaskType | None) -> bool:
    """Return whether a column may hold the labels of a task, None for any."""
    if column.is_lists:
        return task in (None, "multi_label")
    if column.numbers:
        return column.distinct > 1
    return column.is_text and column.repeats and column.has_letters and task != "regression"


def _kind_of(
    chosen: Sequence[Column], task: TaskType | None
) -> tuple[TaskType, dict[str, object], str]:
    """Return the type of task, further settings, and why."""
    first = chosen[0]
    if len(chosen) > 1:
        return "multi_label", {}, f"{len(chosen)} columns of 0 and 1"
    if first.is_lists:
        return task or "multi_label", {}, "lists of labels"
    values = f"{first.distinct:,} different {'numbers' if first.numbers else 'values'}"
    if first.numbers:
        whole = all(number.is_integer() for number in first.numbers)
        few = first.distinct <= _MAX_NUMBERED_CLASSES and first.repeats
        if task is None and whole and few:
            return "classification", {}, f"{values}, taken for classes (else: --task regression)"
        return task or "regression", {}, values
    if task in (None, "multi_label") and first.is_text and (separator := first.separator):
        settings: dict[str, object] = {} if separator == "|" else {"data.separator": separator}
        return "multi_label", settings, f"several labels separated by {format_value(separator)}"
    return task or "classification", {}, values


def _check_header(rows: Rows, labels: Sequence[Column]) -> None:
    """Raise DataError if the names of label columns look like labels."""
    for column in labels:
        is_number = bool(column.numbers) and column.name.replace(".", "").isdigit()
        if is_number or column.name in column.values:
            raise DataError(
                f"{rows.source}: the first line seems to be a row, not a header: {column.name} is"
                " a label.",
                'Name the columns: "data.columns=[text, label]"',
            )


def _unclear(rows: Rows, columns: Iterable[Column], what: str, flags: str) -> DataError:
    command = f"dcft init {shlex.quote(rows.source)} {flags}"
    return DataError(f"{rows.source}: {what}{_listing(columns)}", f"Name it: {command}")


def _listing(columns: Iterable[Column]) -> str:
    return "".join(f"\n  {column.name}: {column.describe()}" for column in columns)
