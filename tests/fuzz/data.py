"""Mutated data files of every format, read for the tasks that take them."""

import csv
import io
import json
from pathlib import Path
from random import Random
from typing import Any

from datasets import ClassLabel, Dataset, Features, Value

from dcft_cli.recipe import recipe_from_mapping
from dcft_cli.tasks import load_task
from tests.fuzz.mutations import mutate_bytes, mutate_value
from tests.samples import rows_of

_CLASSES = {"type": "classification"}
_WORDS = {"type": "token_classification"}
_KINDS: dict[bytes, tuple[str, dict[str, str], dict[str, Any]]] = {
    b"jsonl": ("jsonl", _CLASSES, {"text": ["sentence"], "label": "label"}),
    b"number": ("jsonl", {"type": "regression"}, {"text": ["sentence"], "label": "label"}),
    b"lists": ("jsonl", {"type": "multi_label"}, {"text": ["text"], "label": "labels"}),
    b"words": ("jsonl", _WORDS, {"text": ["tokens"], "label": "ner_tags"}),
    b"squad": ("jsonl", {"name": "squad_v2"}, {}),
    b"array": ("jsonl", _CLASSES, {"text": ["sentence"], "label": "label"}),
    b"csv": ("csv", _CLASSES, {"text": ["sentence"], "label": "label"}),
    b"tsv": ("tsv", _CLASSES, {"text": ["sentence"], "label": "label"}),
    b"parquet": ("parquet", _CLASSES, {"text": ["sentence"], "label": "label"}),
    b"conll": (
        "conll",
        _WORDS,
        {"columns": ["tokens", "tags"], "text": ["tokens"], "label": "tags"},
    ),
}
"""By the first line of a case: format of the file, task and data of the recipe."""


def seeds(folder: Path) -> list[bytes]:
    """Return a file of each kind, after a line that names it."""
    rows = rows_of("sst2", 8)
    table = io.StringIO()
    writer = csv.DictWriter(table, ["sentence", "label"], lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, {"sentence": 'a "quoted"\nfield', "label": 1}])
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    Dataset.from_list(rows, features=features).to_parquet(folder / "rows.parquet")
    tagged = rows_of("token_classification", 6)
    sentences = ["\n".join(f"{w} {t}" for w, t in zip(*r.values(), strict=True)) for r in tagged]
    files = {
        b"jsonl": _lines(rows),
        b"number": _lines([{"sentence": row["sentence"], "label": 0.5 * n}
                           for n, row in enumerate(rows)]),
        b"lists": _lines(rows_of("multi_label", 8)),
        b"words": _lines(tagged),
        b"squad": _lines(rows_of("squad_v2", 8)),
        b"array": json.dumps(rows).encode(),
        b"csv": table.getvalue().encode(),
        b"tsv": table.getvalue().replace(",", "\t").encode(),
        b"parquet": (folder / "rows.parquet").read_bytes(),
        b"conll": "\n\n".join(sentences).encode(),
    }  # fmt: skip
    return [kind + b"\n" + file for kind, file in files.items()]


def mutate(seed: bytes, random: Random) -> bytes:
    """Damage bytes, or a value of a JSON file."""
    kind, _, file = seed.partition(b"\n")
    if _KINDS[kind][0] != "jsonl" or kind == b"array" or random.random() < 0.4:
        return kind + b"\n" + mutate_bytes(file, random)
    rows = [json.loads(line) for line in file.splitlines()]
    for _ in range(random.choice((1, 2))):
        rows = mutate_value(rows, random) or rows
    return kind + b"\n" + (_lines(rows) if isinstance(rows, list) else json.dumps(rows).encode())


def check(data: bytes, path: Path) -> bool:
    """Read a file, as `dcft train` does, for its task.

    Raises:
        DCFTError: it is refused.
    """
    kind, _, file = data.partition(b"\n")
    file_format, task, columns = _KINDS.get(kind, _KINDS[b"jsonl"])
    path.write_bytes(file)
    source = {"train": str(path), "validation": str(path), "format": file_format, **columns}
    sections = {"model": {"name": "none"}, "task": task, "data": source}
    recipe = recipe_from_mapping(sections, "the recipe")
    load_task(recipe.task, recipe.data)
    return True


def _lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
