"""The data sets of learning.py: which rows, for how many epochs, and how they are written."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_VALIDATION = 1000


@dataclass(frozen=True)
class Set:
    """Rows to learn from. `task` is the recipe's; `rows` and `epochs` make 125 to 200 steps."""

    task: dict[str, Any]
    source: str
    rows: int
    epochs: float
    columns: dict[str, Any]


SETS = {
    "words": Set({"type": "regression"}, "words", 6573, 1, {"text": "word", "label": "rating"}),
    "sst2": Set({"name": "sst2"}, "sst2", 2000, 2, {}),
    "stsb": Set({"name": "stsb"}, "stsb", 2000, 2, {}),
    "mrpc": Set({"name": "mrpc"}, "mrpc", 2000, 2, {}),
    "cola": Set({"name": "cola"}, "cola", 2000, 2, {}),
    "sst2-300": Set({"name": "sst2"}, "sst2", 300, 16, {}),
    "address-words": Set({"type": "token_classification"}, "conll", 1200, 4, {}),
    "address-parts": Set(
        {"type": "multi_label"}, "csv", 1200, 4, {"text": "text", "label": "labels"}
    ),
    "rte": Set({"name": "rte"}, "rte", 2000, 2, {}),
}
BASE_SETS = ("sst2", "mrpc", "stsb")


def write_data(place: Path, data: Path, addresses: Path | None) -> None:
    """Write the rows of every set: train, and the two halves of the validation rows."""
    for name, chosen in SETS.items():
        folder = place / name
        folder.mkdir(parents=True)
        if chosen.source in ("conll", "csv"):
            if addresses is None:
                continue
            train, dev = (
                _entries(addresses / f"address-{part}.{chosen.source}") for part in ("train", "dev")
            )
        elif chosen.source == "words":
            train, dev = words()
        else:
            train, dev = (
                _entries(data / chosen.source / f"{part}.jsonl") for part in ("train", "validation")
            )
        first = [dev[0][:0]]
        if chosen.source == "csv":
            first, train, dev = train[:1], train[1:], dev[1:]
        dev = dev[:MOST_VALIDATION]
        halves = {"train": train[: chosen.rows], "choose": dev[0::2], "report": dev[1::2]}
        for part, entries in halves.items():
            path = folder / f"{part}.{file_ending(chosen)}"
            path.write_text("".join([*first, *entries]), encoding="utf-8")


def file_ending(chosen: Set) -> str:
    """Return the file ending of a set's rows."""
    return chosen.source if chosen.source in ("conll", "csv") else "jsonl"


def _entries(path: Path) -> list[str]:
    """Return the rows of a file as text: lines, or the blocks of a conll file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".conll":
        return [f"{block}\n\n" for block in text.strip().split("\n\n")]
    return [f"{line}\n" for line in text.splitlines()]


def words() -> tuple[list[str], list[str]]:
    """Return the rated words of the quickstart; a word's first letters decide its part."""
    import vaderSentiment

    path = Path(vaderSentiment.__file__).with_name("vader_lexicon.txt")
    parts: tuple[list[str], list[str]] = ([], [])
    for line in path.read_text(encoding="utf-8").splitlines():
        word, rating, *_ = line.split("\t")
        digest = hashlib.sha256(word[:5].encode()).digest()
        held_out = int.from_bytes(digest[:8], "big") / 2**64 < 0.12
        parts[held_out].append(json.dumps({"word": word, "rating": float(rating)}) + "\n")
    return parts
