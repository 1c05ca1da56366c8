"""The cache of encoded rows: addressed by all that they depend on, and safe against damage."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import BertTokenizerLegacy

from dcft_cli.data import token_cache
from dcft_cli.data.cache_folder import cache_folder
from tests.families import SPECIAL, WORDS, tiny_tokenizer

TEXTS = ["the cat sat", "a good film", "he lives in paris", "not"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for data of any size."""
    monkeypatch.setenv("DCFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(token_cache, "MIN_BYTES", 0)
    return tmp_path / "cache" / "encoded"


def rows(texts: list[str] = TEXTS, **columns: list[Any]) -> Dataset:
    return Dataset.from_dict({"text": texts, "label": [0, 1, 0, 1][: len(texts)], **columns})


def encode(
    dataset: Dataset, tokenizer: Any = None, settings: tuple[object, ...] = ()
) -> tuple[dict[str, Any], bool]:
    """Return the encoded rows, and whether they had to be encoded."""
    tokenizer = tokenizer or tiny_tokenizer()
    calls = []

    def encode(batch: Any, indices: list[int]) -> dict[str, Any]:
        calls.append(batch)
        return dict(tokenizer(batch["text"], truncation=True, max_length=8))

    return token_cache.encode_rows(dataset, encode, tokenizer, settings).to_dict(), bool(calls)


def test_rows_are_encoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, encoded = encode(rows())
    assert encoded
    (file,) = folder.iterdir()
    assert encode(rows()) == (first, False)
    assert list(folder.iterdir()) == [file]
    monkeypatch.setenv("DCFT_CACHE", "")
    assert encode(rows()) == (first, True)


@pytest.mark.parametrize(
    "other",
    [
        rows([*TEXTS[:3], "not good"]),
        rows(label=[1, 1, 0, 1]),
        rows(TEXTS[::-1]),
        rows().select([1, 0, 2, 3]),
        rows().rename_column("label", "labels"),
    ],
    ids=["text", "label", "order", "indices", "name"],
)
def test_other_rows_are_encoded_again(other: Dataset, folder: Path) -> None:
    encode(rows())
    assert encode(other)[1]


def test_equal_rows_are_found_however_they_are_stored(folder: Path) -> None:
    first, _ = encode(rows())
    shuffled = rows(TEXTS[::-1], label=[1, 0, 1, 0]).select([3, 2, 1, 0])
    assert encode(shuffled) == (first, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_input_names", ["input_ids"]),
        ("truncation_side", "left"),
        ("split_special_tokens", True),
        ("cls_token", "the"),
    ],
)
def test_another_tokenizer_encodes_again(name: str, value: object, folder: Path) -> None:
    encode(rows())
    tokenizer = tiny_tokenizer()
    setattr(tokenizer, name, value)
    assert encode(rows(), tokenizer)[1]
    tokenizer.add_tokens(["good film"])
    assert encode(rows(), tokenizer)[1]


def test_a_tokenizer_written_in_python_is_not_cached(folder: Path, tmp_path: Path) -> None:
    words = tmp_path / "vocab.txt"
    words.write_text("\n".join([*SPECIAL, *WORDS]) + "\n")
    tokenizer = BertTokenizerLegacy(str(words))
    assert encode(rows(), tokenizer) == (encode(rows())[0], True)
    assert encode(rows(), tokenizer)[1]


@pytest.mark.parametrize("kept", [0, 10, -50])
def test_a_file_that_is_cut_off_is_replaced(kept: int, folder: Path) -> None:
    first, _ = encode(rows())
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:kept])
    assert encode(rows()) == (first, True)
    assert encode(rows()) == (first, True)
    assert encode(rows()) == (first, False)


def test_without_a_writable_folder_rows_are_encoded_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DCFT_CACHE", str(tmp_path / "file"))
    first, encoded = encode(rows())
    assert encoded
    assert encode(rows()) == (first, True)


def test_small_data_is_not_cached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "MIN_BYTES", 100_000)
    encode(rows())
    assert not folder.exists()


def test_the_least_recently_used_files_are_deleted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[Path] = []
    for age in (3, 2, 1):
        encode(rows(), settings=(age,))
        (file,) = set(folder.iterdir()) - set(files)
        os.utime(file, (time.time() - 1000 * age,) * 2)
        files.append(file)
    unfinished = folder / "tmp123"
    unfinished.write_bytes(b"x")
    os.utime(unfinished, (0, 0))
    encode(rows(), settings=(3,))
    monkeypatch.setattr(token_cache, "MAX_CACHE_BYTES", 2.5 * files[0].stat().st_size)
    encode(rows(), settings=(0,))
    (new,) = set(folder.iterdir()) - set(files)
    assert set(folder.iterdir()) == {new, files[0]}


def test_the_tokenizer_is_not_changed(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(7)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    before = tokenizer.backend_tokenizer.to_str()
    for _ in range(2):
        encode(rows(), tokenizer)
        assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize(
    ("own", "usual", "expected"),
    [
        ("/a", "/b", "/a/encoded"),
        (None, "/b", "/b/dcft/encoded"),
        (None, "", "/home/x/.cache/dcft/encoded"),
        ("", "/b", None),
    ],
)
def test_the_cache_folder(
    own: str | None, usual: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DCFT_CACHE")
    if own is not None:
        monkeypatch.setenv("DCFT_CACHE", own)
    monkeypatch.setenv("XDG_CACHE_HOME", usual)
    monkeypatch.setenv("HOME", "/home/x")
    assert cache_folder() == (expected and Path(expected))
