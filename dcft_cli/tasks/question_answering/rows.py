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
    inputs = {"question": rows.texts(question), "context": rows.texts(context)}
    references = rows.values(answers, "data.label")
    rows.check(
        answers,
        references,
        lambda value: "" if _well_formed(value) else f"is {format_value(value)}",
        "malformed answers",
        'Each row needs {"text": [...], "answer_start": [...]} as in SQuAD, which a jsonl or'
        " parquet file can hold, but not a csv or tsv file.",
    )
    if not unanswerable:
        rows.check(
            answers,
            references,
            lambda value: "" if value["text"] else "is empty",
            "question without an answer",
            "Allow it with task.unanswerable=true (or task.name=squad_v2).",
        )
    rows.raise_for(
        list(map(_offset_problem, references, inputs["context"])),
        "answer that is not at its offset",
        "answer_start counts the characters of the context from 0, not bytes or words.",
    )
    columns = {
        **inputs,
        "answers": [{key: value[key] for key in ("text", "answer_start")} for value in references],
    }
    return Dataset.from_dict(columns, features=_FEATURES)


def _well_formed(answers: object) -> bool:
    if not isinstance(answers, Mapping):
        return False
    texts, starts = answers.get("text"), answers.get("answer_start")
    return (
        isinstance(texts, list)
        and isinstance(starts, list)
        and len(texts) == len(starts)
        and all(isinstance(text, str) for text in texts)
        and all(isinstance(start, int) for start in starts)
    )


def _offset_problem(answers: Mapping[str, list[Any]], context: str) -> str:
    """Return the problem of the first answer that is not at its offset; "" if there is none."""
    for text, start in zip(answers["text"], answers["answer_start"], strict=True):
        if not text.strip():
            return "the answer is empty"
        if start < 0 or not context.startswith(text, start):
            found = context[start : start + len(text)] if start >= 0 else ""
            return f"at character {start} is {format_value(found)}, not {format_value(text)}"
    return ""
