"""What every family encodes: found in the cache, for the same rows and settings only."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from dcft_cli.data import token_cache
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.tasks import load_task
from tests.families import tiny_tokenizer
from tests.samples import rows_of, write_rows

OWN = {
    "token_classification": {},
    "multi_label": {"text": "text", "label": "labels"},
}


def encode(name: str, folder: Path, **data: Any) -> tuple[Dataset, Dataset]:
    """Return a task's training and validation features, both made of the same rows."""
    file = write_rows(folder / "rows.jsonl", rows_of(name, 12))
    lengths = {"max_length": 32, "document_stride": 4}
    section = DataSection(train=file, validation=file, **lengths | OWN.get(name, {}) | data)
    task = TaskSection(type=name) if name in OWN else TaskSection(name=name)
    loaded = load_task(task, section)
    assert loaded.train is not None
    train = loaded.task.encode_training(loaded.train.dataset, tiny_tokenizer())
    dataset = loaded.validation[""].dataset
    return train, loaded.task.evaluation_set("", dataset, tiny_tokenizer()).features


def digest(*features: Dataset) -> str:
    content = json.dumps([part.to_dict() for part in features], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DCFT_CACHE", str(tmp_path))
    monkeypatch.setattr(token_cache, "MIN_BYTES", 0)
    return tmp_path / "encoded"


@pytest.mark.parametrize(
    "name", ["sst2", "mrpc", "stsb", "squad_v2", "token_classification", "multi_label"]
)
def test_cached_features_are_those_that_were_encoded(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode(name, tmp_path)
    files = set(cache.iterdir())
    again = encode(name, tmp_path)
    assert set(cache.iterdir()) == files
    monkeypatch.setenv("DCFT_CACHE", "")
    uncached = encode(name, tmp_path)
    assert digest(*first) == digest(*again) == digest(*uncached)
    assert first[0].features == again[0].features == uncached[0].features


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sst2", {"max_length": 5}),
        ("squad_v1", {"max_length": 20}),
        ("squad_v1", {"document_stride": 2}),
        ("token_classification", {"max_length": 8}),
        ("token_classification", {"document_stride": 1}),
    ],
)
def test_lengths_are_part_of_the_key(
    name: str, settings: dict[str, int], cache: Path, tmp_path: Path
) -> None:
    encode(name, tmp_path)
    files = len(list(cache.iterdir()))
    encode(name, tmp_path, **settings)
    assert len(list(cache.iterdir())) == 2 * files


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mrpc", "a95034db3d75"),
        ("squad_v2", "1b68e5132618"),
        ("token_classification", "a664c99915f0"),
    ],
)
def test_a_changed_encoding_needs_a_new_version(name: str, expected: str, tmp_path: Path) -> None:
    """If this fails, a task encodes the same rows differently: raise `ENCODING_VERSION`."""
    assert (token_cache.ENCODING_VERSION, digest(*encode(name, tmp_path))) == (3, expected)
