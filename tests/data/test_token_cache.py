"""Rows that are encoded once: kept in files, which may be damaged, old, or impossible."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from dcft_cli.data import token_cache as encoding
from dcft_cli.errors import DataError
from tests.families import tiny_tokenizer
from tests.samples import rows_of
from tests.tasks.encoded import encoded

KINDS = ["sst2", "mrpc", "stsb", "squad_v2", "token_classification", "multi_label"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_time_nothing_is_encoded(
    kind: str, folder: Path, calls: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(kind, 12)
    first, held = encoded(kind, tmp_path, rows)
    files = sorted(folder.iterdir())
    assert {file.suffix for file in files} == {".arrow"}
    assert calls
    calls.clear()
    again, held_again = encoded(kind, tmp_path, rows)
    assert calls == []
    assert sorted(folder.iterdir()) == files
    monkeypatch.setenv("DCFT_CACHE", "")
    without, held_without = encoded(kind, tmp_path, rows)
    assert calls
    for found in (first, again):
        assert found.features == without.features
        assert found.to_dict() == without.to_dict()
    for found in (held, held_again):
        assert found.features.to_dict() == held_without.features.to_dict()


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_off, flip_a_bit, empty])
def test_a_damaged_file_is_made_anew(
    damage: Callable[[Path], None], folder: Path, calls: list[int], tmp_path: Path
) -> None:
    rows = rows_of("sst2", 12)
    first, _ = encoded("sst2", tmp_path, rows)
    expected = first.to_dict()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.unlink()  # the old content is still mapped
    file.write_bytes(whole)
    damage(file)
    calls.clear()
    again, _ = encoded("sst2", tmp_path, rows)
    assert calls
    assert again.to_dict() == expected
    assert file.read_bytes() == whole


def test_no_folder_to_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[int]
) -> None:
    monkeypatch.setattr(encoding, "SMALL", 0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DCFT_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        calls.clear()
        train, _ = encoded("sst2", tmp_path, rows_of("sst2", 12))
        assert (len(train), bool(calls)) == (12, True)


def test_little_data_is_not_kept(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(encoding, "SMALL", 100_000)
    encoded("sst2", tmp_path, rows_of("sst2", 12))
    assert not folder.exists()


def test_an_encoding_that_fails_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    def fail(batch: Any) -> Any:
        raise DataError("no words")

    rows = Dataset.from_dict({"text": ["a"]})
    with pytest.raises(DataError):
        encoding.encode_rows(rows, fail, tiny_tokenizer(), ())
    assert list(folder.iterdir()) == []


def test_what_was_not_used_for_longest_goes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: dict[int, Path] = {}
    for count in (10, 11, 12):
        encoded("sst2", tmp_path, rows_of("sst2", count))
        (files[count],) = set(folder.iterdir()) - set(files.values())
        old = time.time() - 1000 + count
        os.utime(files[count], (old, old))
    encoded("sst2", tmp_path, rows_of("sst2", 10))  # used again
    abandoned = folder / "begun-x"
    abandoned.mkdir()
    os.utime(abandoned, (0, 0))
    monkeypatch.setattr(encoding, "LIMIT", 2.5 * files[12].stat().st_size)
    encoded("sst2", tmp_path, rows_of("sst2", 13))
    (new,) = set(folder.iterdir()) - set(files.values())
    assert set(folder.iterdir()) == {new, files[10]}


def test_the_tokenizer_stays_as_it_was(folder: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(7)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    before = tokenizer.backend_tokenizer.to_str()
    for _ in range(2):
        encoded("sst2", tmp_path, rows_of("sst2", 12), tokenizer)
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
def test_where_files_are(
    own: str | None, usual: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DCFT_CACHE")
    if own is not None:
        monkeypatch.setenv("DCFT_CACHE", own)
    monkeypatch.setenv("XDG_CACHE_HOME", usual)
    monkeypatch.setenv("HOME", "/home/x")
    assert encoding.cache_folder() == (expected and Path(expected))
