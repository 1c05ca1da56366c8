"""Tiny generated data sets in the words of the tiny tokenizer."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcft_cli.tasks.known import KNOWN

Row = dict[str, Any]

_GOOD, _BAD = ("good", "great", "tall"), ("bad", "awful", "not")
_THINGS = ("film", "movie", "plot", "cat", "dog", "mat", "river")
_PLACES = ("paris", "london")


def opinion(good: bool, draw: random.Random) -> str:
    """Return a sentence of 4 to 8 words, of which one tells the opinion."""
    word, thing = draw.choice(_GOOD if good else _BAD), draw.choice(_THINGS)
    more = draw.choices(_THINGS, k=draw.randrange(5))
    return " ".join(["the", thing, *more, "was", word])


def text_rows(task: str, count: int, seed: int = 0) -> list[Row]:
    """Return rows of a known GLUE task; every label occurs in the first rows."""
    draw = random.Random(seed)
    known = KNOWN[task]
    classes = len(known.labels) or 5
    rows = []
    for number in range(count):
        label = number % classes
        texts = [opinion(label != 0, draw), opinion(label == 1, draw)]
        row: Row = dict(zip(known.text, texts, strict=False))
        rows.append(row | {"label": label if known.labels else label + draw.random()})
    return rows


def question_rows(count: int, *, unanswerable: bool = False, seed: int = 0) -> list[Row]:
    """Return rows like SQuAD's; with `unanswerable` every third question has no answer."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        place, thing = draw.choice(_PLACES), draw.choice(_THINGS)
        before = " ".join(opinion(draw.random() < 0.5, draw) for _ in range(number % 9))
        context = f"{before} he lives in {place} . the {thing} is tall .".strip()
        silent = unanswerable and number % 3 == 2
        answers = {"text": [], "answer_start": []}
        if not silent:
            answers = {"text": [place], "answer_start": [context.index(place)]}
        question = "when was she born ?" if silent else "where does he lives ?"
        rows.append(
            {"id": f"q{number}", "question": question, "context": context, "answers": answers}
        )
    return rows


def tagged_rows(count: int, seed: int = 0) -> list[Row]:
    """Return words with tags of entities: places, and things with their article."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words, tags = [], []
        for _ in range(draw.randrange(1, 12)):
            if draw.random() < 0.5:
                words += ["the", draw.choice(_THINGS)]
                tags += ["B-THING", "I-THING"]
            words += ["was", draw.choice(_PLACES)]
            tags += ["O", "B-PLACE"]
        rows.append({"tokens": words, "ner_tags": tags})
    return rows


def label_set_rows(count: int, seed: int = 0) -> list[Row]:
    """Return texts with the list of the things in them; every fourth text has none."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        things = draw.sample(_THINGS[:4], number % 4)
        rows.append({"text": " ".join(["the", *things, "was", "great"]), "labels": things})
    return rows


def rows_of(task: str, count: int, seed: int = 0) -> list[Row]:
    """Return rows of a known task, or of a type of task."""
    if task == "token_classification":
        return tagged_rows(count, seed)
    if task == "multi_label":
        return label_set_rows(count, seed)
    if task.startswith("squad"):
        return question_rows(count, unanswerable=task == "squad_v2", seed=seed)
    return text_rows(task, count, seed)


def write_rows(path: Path, rows: Sequence[Row]) -> str:
    """Write a jsonl file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
