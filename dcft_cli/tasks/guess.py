"""A guess at the task of rows: which columns hold texts and labels, and what is predicted."""

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import mean
from typing import Any

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
    "topics", "tags", "rating", "score", "stars",
)  # fmt: skip
_PAIRS = (
    ("premise", "hypothesis"), ("question", "sentence"), ("question", "passage"),
    ("question", "context"), ("query", "document"), ("query", "passage"),
)  # fmt: skip
_NUMBERED = re.compile(r"(.*?)[_ ]?(1|2|a|b)")
_ID = re.compile(r"(id|idx|index|uuid|guid|row|unnamed: ?0)?|.*[_ ]id", re.IGNORECASE)
_SEPARATORS = "|;,"
# A text column is taken without asking if its texts are this many times as long as all others'.
_CLEARLY_LONGER = 4
_LONG_NAME = 40
_MAX_NUMBERED_CLASSES = 20


@dataclass(frozen=True)
class Guess:
    """What rows seem to be for.

    Attributes:
        text, label: names of columns.
        settings: other keys of the data and task sections, dotted.
        reasons: why, by `task`, `text` and `label`.
    """

    task: TaskType
    text: tuple[str, ...]
    label: tuple[str, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Column:
    """The values of a column that are not missing or empty."""

    name: str
    values: Sequence[Any]

    @cached_property
    def is_lists(self) -> bool:
        return self._all(lambda value: isinstance(value, list) or _looks_like_list(value))

    @cached_property
    def is_words(self) -> bool:
        return self._all(lambda value: isinstance(value, list)) and self._all(
            lambda value: all(isinstance(word, str) for word in value)
        )

    @cached_property
    def is_answers(self) -> bool:
        return self._all(lambda value: isinstance(value, Mapping) and "answer_start" in value)

    @cached_property
    def numbers(self) -> Sequence[float]:
        """The values as numbers; empty if one of them is none."""
        numbers = [_number(value) for value in self.values]
        return [] if None in numbers else [n for n in numbers if n is not None]

    @cached_property
    def is_text(self) -> bool:
        return self._all(lambda value: isinstance(value, str)) and not (
            self.numbers or self.is_lists
        )

    @cached_property
    def distinct(self) -> int:
        return len({repr(value) for value in self.values})

    @cached_property
    def repeats(self) -> bool:
        """Whether values occur twice or more on average, as those of classes do."""
        return 2 <= self.distinct <= len(self.values) / 2

    @cached_property
    def length(self) -> float:
        return mean(len(value) for value in self.values)

    @cached_property
    def is_id(self) -> bool:
        """Whether it numbers the rows, by its name or its values."""
        whole = sorted(self.numbers)
        counts = len(whole) > 2 and whole == list(range(int(whole[0]), int(whole[0]) + len(whole)))
        return bool(_ID.fullmatch(self.name)) or counts

    @cached_property
    def is_prose(self) -> bool:
        """Whether the values are texts of several words, rather than names of classes."""
        # Repeated texts are names of classes unless they are longer than such names.
        if not self.is_text or (self.repeats and self.length < _LONG_NAME):
            return False
        return self.has_letters and mean(len(value.split()) for value in self.values) >= 2

    @cached_property
    def has_letters(self) -> bool:
        """Whether most values do, unlike dates and phone numbers."""
        found = sum(bool(re.search(r"[^\W\d_]", value)) for value in self.values)
        return found > len(self.values) / 2

    @cached_property
    def is_binary(self) -> bool:
        return set(self.numbers) == {0, 1}

    @cached_property
    def separator(self) -> str:
        """The character between several labels in one text; "" if there seems to be none."""
        wholes = set(self.values)
        for separator in _SEPARATORS:
            pieces = {piece.strip() for whole in wholes for piece in whole.split(separator)}
            if any(separator in whole for whole in wholes) and len(pieces) <= len(wholes):
                return separator
        return ""

    def describe(self) -> str:
        """Return what the column holds, for a reader."""
        if not self.values:
            return "empty"
        if self.is_lists:
            return "lists"
        if self.numbers:
            return f"{self.distinct:,} different numbers"
        if self.is_text and not self.repeats:
            return f"texts of {self.length:.0f} characters on average"
        return f"{self.distinct:,} different values"

    def _all(self, condition: Any) -> bool:
        return bool(self.values) and all(map(condition, self.values))


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
    columns = {name: _Column(name, _present(rows.values(name, "--text"))) for name in rows.columns}
    for names, flag in ((text, "--text"), (label, "--label")):
        for name in names:
            rows.values(name, flag)
    if task in (None, "question_answering") and (found := _questions(rows, columns, text, label)):
        return found
    if task in (None, "token_classification") and (found := _words(rows, columns, text, label)):
        return found
    if task in ("question_answering", "token_classification"):
        raise _unclear(rows, columns.values(), f"{task} needs other columns than these", "")
    texts, why_text = _texts(rows, columns, text, label)
    rest = [column for column in columns.values() if column.name not in texts]
    chosen = [columns[name] for name in label] or _labels(rows, rest, task)
    kind, settings, why_label = _kind_of(chosen, task)
    for column in chosen:
        _check_header(rows, column)
    return Guess(
        kind,
        texts,
        tuple(column.name for column in chosen),
        settings,
        {"text": why_text, "label": why_label},
    )


def _questions(
    rows: Rows, columns: Mapping[str, _Column], text: Sequence[str], label: Sequence[str]
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
    reasons = {"label": f"answers with offsets; {silent:,} questions have none" if silent else
                        "answers with offsets"}  # fmt: skip
    return Guess("question_answering", names, (answer.name,), settings, reasons)


def _words(
    rows: Rows, columns: Mapping[str, _Column], text: Sequence[str], label: Sequence[str]
) -> Guess | None:
    words = [c for c in columns.values() if c.is_words and c.name in (text or columns)]
    words.sort(key=lambda c: (c.name != WORDS_COLUMN, -len({w for v in c.values for w in v})))
    lengths = {c.name: [len(v) for v in c.values] for c in columns.values()
               if c.values and isinstance(c.values[0], list) and c.is_lists}  # fmt: skip
    for column in words[:1]:
        tags = [
            name
            for name in (label or lengths)
            if name != column.name and lengths.get(name) == lengths[column.name]
        ]
        if len(tags) > 1:
            tags = [name for name in tags if name == LABELS_COLUMN] or tags
        if len(tags) > 1:
            raise _unclear(rows, [columns[name] for name in tags], "which are the labels?",
                           "--label COLUMN")  # fmt: skip
        if tags:
            reasons = {"text": "lists of words", "label": "one for each word"}
            return Guess("token_classification", (column.name,), (tags[0],), {}, reasons)
    return None


def _texts(
    rows: Rows, columns: Mapping[str, _Column], text: Sequence[str], label: Sequence[str]
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
    for pair in _pairs([c.name for c in found]):
        return pair, "a pair, by the names"
    found.sort(key=lambda column: -column.length)
    if not found:
        raise _unclear(rows, columns.values(), "no column seems to hold texts", "--text COLUMN")
    first, *others = found
    if others and first.length < _CLEARLY_LONGER * others[0].length:
        named = [c for c in found if c.name.lower() in _TEXT_NAMES]
        if len(named) != 1:
            flags = "--text COLUMN (or two of them for a pair: --text COLUMN --text COLUMN)"
            raise _unclear(rows, found, "several columns may hold the texts", flags)
        first = named[0]
    longest = max(len(value) for value in first.values)
    return (first.name,), (
        f"{'the longest texts' if others else 'the only texts'}: {first.length:,.0f} characters on "
        f"average, at most {longest:,}"
    )


def _pairs(names: Sequence[str]) -> Iterable[tuple[str, str]]:
    lower = {name.lower(): name for name in names}
    yield from ((lower[a], lower[b]) for a, b in _PAIRS if a in lower and b in lower)
    by_stem: dict[str, list[str]] = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name.lower()):
            by_stem.setdefault(match[1], []).append(name)
    yield from ((pair[0], pair[1]) for pair in by_stem.values() if len(pair) == 2)


def _labels(rows: Rows, columns: Sequence[_Column], task: TaskType | None) -> list[_Column]:
    """Return the label column, or the columns of 0 and 1 of several labels."""
    found = [c for c in columns if not c.is_id and _possible(c, task)]
    named = [c for name in _LABEL_NAMES for c in found if c.name.lower() == name]
    if named and (len(named) == 1 or named[0].name.lower() == "label"):
        return named[:1]
    binary = [c for c in found if c.is_binary]
    if len(binary) > 1 and len(binary) == len(found) and task in (None, "multi_label"):
        return binary
    if len(found) != 1:
        which = "several columns may hold the labels" if found else "no column seems to hold labels"
        flags = "--label COLUMN"
        if len(binary) > 1:
            flags += " (several for columns of 0 and 1)"
        raise _unclear(rows, found or columns, which, flags)
    return found


def _possible(column: _Column, task: TaskType | None) -> bool:
    """Return whether a column may hold the labels of a task, None for any."""
    if column.is_lists:
        return task in (None, "multi_label")
    if column.numbers:
        return column.distinct > 1
    return column.is_text and column.repeats and column.has_letters and task != "regression"


def _kind_of(
    chosen: Sequence[_Column], task: TaskType | None
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


def _check_header(rows: Rows, column: _Column) -> None:
    """Raise DataError if the name of a label column is one of its values."""
    if column.name in map(str, column.values):
        raise DataError(
            f"{rows.source}: the first line seems to be a row and not a header: {column.name} is"
            " also a label.",
            'Name the columns: "data.columns=[text, label]"',
        )


def _unclear(rows: Rows, columns: Iterable[_Column], what: str, flags: str) -> DataError:
    listed = "".join(f"\n  {column.name}: {column.describe()}" for column in columns)
    return DataError(
        f"{rows.source}: {what}{listed}",
        f"Say it: dcft init {shlex.quote(rows.source)} {flags}".rstrip(),
    )


def _present(values: Iterable[Any]) -> list[Any]:
    named = (str(v).lower() if isinstance(v, bool) else v for v in values)
    return [v for v in named if v is not None and not (isinstance(v, str) and not v.strip())]


def _looks_like_list(value: object) -> bool:
    return isinstance(value, str) and value.startswith("[") and value.endswith("]")


def _number(value: object) -> float | None:
    """Return a value as a finite number; None if it is none."""
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
