"""Encoded rows are found by all that they depend on, and by nothing else."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertTokenizerLegacy, PreTrainedTokenizerFast

from dcft_cli.data import token_cache as encoding
from tests.families import SPECIAL, WORDS, tiny_tokenizer
from tests.samples import Row, rows_of, write_rows
from tests.tasks.encoded import encoded


def change_a_word(rows: list[Row]) -> None:
    rows[3]["sentence"] += " not"


def change_a_label(rows: list[Row]) -> None:
    rows[3]["label"] = 1 - rows[3]["label"]


def swap_two_rows(rows: list[Row]) -> None:
    rows[2], rows[3] = rows[3], rows[2]


@pytest.mark.parametrize("change", [change_a_word, change_a_label, swap_two_rows])
def test_other_rows_are_encoded_anew(
    change: Callable[[list[Row]], None], folder: Path, calls: list[int], tmp_path: Path
) -> None:
    rows = rows_of("sst2", 12)
    before, _ = encoded("sst2", tmp_path, rows)
    age = (tmp_path / "rows.jsonl").stat()
    calls.clear()
    change(rows)
    write_rows(tmp_path / "rows.jsonl", rows)
    os.utime(tmp_path / "rows.jsonl", ns=(age.st_atime_ns, age.st_mtime_ns))
    after, _ = encoded("sst2", tmp_path, rows)
    assert calls
    assert after.to_dict() != before.to_dict()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("sst2", {"max_length": 5}),
        ("squad_v1", {"max_length": 20}),
        ("squad_v1", {"document_stride": 2}),
        ("token_classification", {"max_length": 8}),
        ("token_classification", {"document_stride": 1}),
    ],
)
def test_other_settings(
    kind: str, settings: dict[str, int], folder: Path, calls: list[int], tmp_path: Path
) -> None:
    rows = rows_of(kind, 12)
    encoded(kind, tmp_path, rows, max_length=24)
    calls.clear()
    encoded(kind, tmp_path, rows, **{"max_length": 24} | settings)
    assert calls


def other_words() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["good film"])
    return tokenizer


def other_normalizer() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = None
    return tokenizer


def other_inputs() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.model_input_names = ["input_ids"]
    return tokenizer


def other_end() -> PreTrainedTokenizerFast:
    return tiny_tokenizer(truncation_side="left")


def other_splitting() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.split_special_tokens = True
    return tokenizer


@pytest.mark.parametrize(
    "make", [other_words, other_normalizer, other_inputs, other_end, other_splitting]
)
def test_another_tokenizer(
    make: Callable[[], PreTrainedTokenizerFast], folder: Path, calls: list[int], tmp_path: Path
) -> None:
    rows = rows_of("sst2", 12)
    encoded("sst2", tmp_path, rows)
    calls.clear()
    encoded("sst2", tmp_path, rows, make())
    assert calls


def test_a_tokenizer_written_in_python(folder: Path, tmp_path: Path) -> None:
    def tokenizer(*more: str) -> BertTokenizerLegacy:
        words = tmp_path / "vocab.txt"
        words.write_text("\n".join([*SPECIAL, *WORDS, *more]) + "\n")
        return BertTokenizerLegacy(str(words))

    rows = [*rows_of("sst2", 12), {"sentence": "a walrus", "label": 0}]
    first, _ = encoded("sst2", tmp_path, rows, tokenizer())
    files = set(folder.iterdir())
    again, _ = encoded("sst2", tmp_path, rows, tokenizer())
    assert set(folder.iterdir()) == files
    assert again.to_dict() == first.to_dict()
    other, _ = encoded("sst2", tmp_path, rows, tokenizer("walrus"))
    assert other.to_dict() != first.to_dict()


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("mrpc", "a95034db3d75"),
        ("squad_v2", "1b68e5132618"),
        ("token_classification", "a664c99915f0"),
    ],
)
def test_another_encoding_has_another_number(kind: str, digest: str, tmp_path: Path) -> None:
    """If this fails, what a task makes of rows has changed: raise `ENCODING`, too."""
    train, held = encoded(kind, tmp_path, rows_of(kind, 12))
    found = json.dumps([train.to_dict(), held.features.to_dict()], sort_keys=True)
    assert (encoding.ENCODING, hashlib.sha256(found.encode()).hexdigest()[:12]) == (1, digest)
