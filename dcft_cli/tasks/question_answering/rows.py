"""Rows of question answering: questions, contexts and reference answers."""

from collections.abc import Mapping
from typing import Any

from datasets import Dataset, Features, List, Value

from dcft_cli.data.rows import Rows, format_value

_FEATURES = Features(
    {
        "question": Value("string"),
        "context": Value("string"),
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int64"))},
    }
)


def prepare_questions(
    rows: Rows, question: str, context: str, answers: str, *, unanswerable: bool
) -> Dataset:
    """Check rows and put them into the columns of SQuAD: `question`, `context`, `answers`.

    Raises:
        DataError: a missing column; a missing or empty text; a question without an answer; an
            answer that is malformed or not at its offset.
    """
    questions, contexts = rows.texts(question), rows.texts(context)
    values = rows.values(answers, "data.label")
    references = list(map(_read_answers, values))
    rows.report(
        [
            f"`{answers}` is {format_value(value)}" if reference is None else ""
            for value, reference in zip(values, references, strict=True)
        ],
        "malformed answers",
        'Each row needs {"text": [...], "answer_start": [...]} as in SQuAD, which a jsonl or'
        " parquet file can hold, but not a csv or tsv file.",
    )
    if not unanswerable:
        rows.check(
            answers,
            references,
            lambda value: "is empty" if value and not value["text"] else "",
            "question without an answer",
            "Allow it with task.unanswerable=true (or task.name=squad_v2).",
        )
    rows.report(
        list(map(_offset_problem, references, contexts)),
        "answer that is not at its offset",
        "answer_start counts the characters of the context from 0, not bytes or words.",
    )
    rows.raise_problems()
    columns = {"question": questions, "context": contexts, "answers": references}
    return Dataset.from_dict(columns, features=_FEATURES)


def _read_answers(answers: object) -> dict[str, list[Any]] | None:
    """Return the texts and offsets of the answers to a question; None if they are malformed.

    Offsets may be floats (pandas makes them so where some are missing). Some data sets write an
    unanswerable question as an empty answer; at any offset it means that there is none.
    """
    if not isinstance(answers, Mapping):
        return None
    texts, starts = answers.get("text"), answers.get("answer_start")
    if not (isinstance(texts, list) and isinstance(starts, list)):
        return None
    if texts == [""] and len(starts) <= 1:
        return {"text": [], "answer_start": []}
    offsets = [int(start) if _is_whole(start) else start for start in starts]
    well_formed = (
        len(texts) == len(offsets)
        and all(isinstance(text, str) for text in texts)
        and all(type(start) is int for start in offsets)
    )
    return {"text": texts, "answer_start": offsets} if well_formed else None


def _is_whole(start: object) -> bool:
    return isinstance(start, float) and start.is_integer()


def _offset_problem(answers: Mapping[str, list[Any]] | None, context: object) -> str:
    """Return the problem of the first answer that is not at its offset; "" if there is none."""
    if answers is None or not isinstance(context, str):
        return ""  # reported already
    for text, start in zip(answers["text"], answers["answer_start"], strict=True):
        if not text.strip():
            return "the answer is empty"
        if start == -1:
            return f"at -1, as for a question without an answer, but it is {format_value(text)}"
        if start < 0 or not context.startswith(text, start):
            found = context[start : start + len(text)] if start >= 0 else ""
            return f"at character {start} is {format_value(found)}, not {format_value(text)}"
    return ""
