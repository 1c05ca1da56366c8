"""JSON files: a row per line, one array of rows, or the nested files of SQuAD."""

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from dcft_cli.data.rows import BadRow, Record, format_value
from dcft_cli.errors import DataError

_HINT = (
    "Each line is one JSON object: the row, by column name. Or the whole file is one array of such"
    " objects."
)
_MAX_DEPTH = 100
_TOO_DEEP = "nested too deep"


def read_json(lines: Iterator[str], source: str, columns: list[str]) -> Iterator[Record | BadRow]:
    """Yield the rows of a JSON file.

    Files that are one array, or SQuAD's own, are read as a whole; their rows have no lines.

    Args:
        columns: gets the names of the columns, in order of appearance.

    Raises:
        DataError: a whole file is not valid JSON.
    """
    for row in _rows(lines, source):
        if isinstance(row, Record):
            columns += [name for name in row.values if name not in columns]
        yield row


def _rows(lines: Iterator[str], source: str) -> Iterator[Record | BadRow]:
    first = True
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if first and (text.startswith("[") or text == "{"):
            yield from _rows_of_document("\n" * (number - 1) + line + "".join(lines), source)
            return
        row = _parse_line(number, text)
        if first and isinstance(row, Record) and (nested := _squad_rows(row.values)):
            yield from chain(nested, _lines_after(lines, number))
            return
        first = False
        yield row


def _lines_after(lines: Iterator[str], number: int) -> Iterator[BadRow]:
    for later, line in enumerate(lines, start=number + 1):
        if line.strip():
            hint = "A SQuAD file is one JSON object."
            yield BadRow(later, "more after the end of the file's only object", "", hint)


def _parse_line(number: int, text: str) -> Record | BadRow:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadRow(number, "malformed JSON", _problem(error), _HINT)
    if text.count("[") + text.count("{") > _MAX_DEPTH and _is_deep(record):
        return BadRow(number, "malformed JSON", _TOO_DEEP, _HINT)
    if isinstance(record, dict):
        return Record(number, record)
    return BadRow(number, "not a JSON object", format_value(record), _HINT)


def _rows_of_document(text: str, source: str) -> Iterator[Record | BadRow]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{source}{line}: malformed JSON: {_problem(error)}.", _HINT) from None
    if isinstance(document, dict):
        nested = _squad_rows(document)
        if not nested:
            raise DataError(
                f"{source} is one JSON object over several lines.",
                "Put each object on a line of its own: jq -c . OLD > NEW",
            )
        yield from nested
        return
    for value in document:
        if _is_deep(value):
            yield BadRow(None, "malformed JSON", _TOO_DEEP, _HINT)
        elif isinstance(value, dict):
            yield Record(None, value)
        else:
            yield BadRow(None, "not a JSON object", format_value(value), _HINT)


def _squad_rows(document: Mapping[str, Any]) -> list[Record]:
    """Return the questions of a file in SQuAD's format, if it is one.

    The format nests questions in paragraphs and paragraphs in articles, and lists each answer
    with its offset (https://rajpurkar.github.io/SQuAD-explorer). Questions to be predicted have
    no answers.
    """
    try:
        return [
            Record(
                None,
                {
                    "id": question.get("id"),
                    "title": article.get("title"),
                    "context": paragraph["context"],
                    "question": question["question"],
                    **_squad_answers(question),
                },
            )
            for article in document["data"]
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (KeyError, TypeError, AttributeError):
        return []


def _squad_answers(question: Mapping[str, Any]) -> dict[str, Any]:
    answers = question.get("answers")
    if answers is None:
        return {}
    keys = ("text", "answer_start")
    return {"answers": {key: [answer[key] for answer in answers] for key in keys}}


def _is_deep(value: object, levels: int = _MAX_DEPTH) -> bool:
    """Return whether lists and mappings are nested in more levels than can be shown or written."""
    inner = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(inner, list):
        return False
    return levels == 0 or any(_is_deep(entry, levels - 1) for entry in inner)


def _problem(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"at character {error.colno} ({error.msg})"
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    return "a number with too many digits"
