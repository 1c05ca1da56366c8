"""Rows that name their adapter get what that adapter predicts alone."""

import json
from pathlib import Path
from typing import Any

import pytest

import dcft_cli
from dcft_cli.data.rows import Rows
from dcft_cli.errors import AdapterFileError, DataError, RunError
from dcft_cli.prediction.mixed import load_mixed
from dcft_cli.tasks import FAMILIES
from tests.prediction.adapters import LABELS, close, rows_for, save, save_folder


@pytest.fixture
def adapters(base: Path, tmp_path: Path) -> Path:
    return save_folder(base, tmp_path / "adapters")


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_row_gets_what_its_adapter_predicts_alone(
    kind: str, base: Path, tmp_path: Path
) -> None:
    paths = {name: save(base, tmp_path / f"{name}.safetensors", name, kind) for name in LABELS}
    rows = rows_for(kind, 23)
    mixed = load_mixed(str(tmp_path), "tenant", batch_size=5)
    found = mixed(rows)
    assert mixed.adapters.can_mix(LABELS)
    alone = {name: dcft_cli.load(path) for name, path in paths.items()}
    differing = set()
    for row, prediction in zip(rows, found, strict=True):
        expected = alone[row["tenant"]](row)
        assert close(prediction, expected), (prediction, expected)
        differing.add(json.dumps(prediction))
    assert len(differing) > 3, "predictions that hardly differ prove nothing"


def test_names_that_no_adapter_has_are_listed(adapters: Path) -> None:
    mixed = load_mixed(str(adapters), "tenant")
    texts = [("good", "acme"), ("bad", "acne"), ("bad", None)]
    with pytest.raises(DataError) as error:
        mixed(texts)
    assert "no known adapter in 2 rows" in error.value.message
    assert "row 2: `tenant` is 'acne'" in error.value.message
    assert "row 3: `tenant` is missing" in error.value.message
    assert error.value.hint == "Known: acme, initech, umbrella."
    rows = Rows([{"text": "good"}], ["text"], "rows.csv")
    with pytest.raises(DataError, match=r"rows\.csv has no column `tenant`"):
        mixed.predict(rows)


@pytest.mark.parametrize("damaged", ["umbrella", "aaa"])
def test_adapters_are_loaded_when_a_row_names_them(adapters: Path, damaged: str) -> None:
    """One that is damaged is in the way only then, also if it is the first by name."""
    (adapters / f"{damaged}.safetensors").write_bytes(b"damaged")
    mixed = load_mixed(str(adapters), "tenant")
    assert mixed([("good", "acme"), ("bad", "initech")])
    assert mixed.adapters.adapter_names == ["acme", "initech"]
    with pytest.raises(AdapterFileError, match="damaged"):
        mixed([("good", damaged)])


def test_without_a_single_readable_adapter_the_first_problem_is_told(tmp_path: Path) -> None:
    for name in ("acme", "initech"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"damaged")
    with pytest.raises(AdapterFileError, match=r"acme\.safetensors"):
        load_mixed(str(tmp_path), "tenant")


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("multi_label", {}, "is for multi_label of text; .* is for classification of text"),
        ("classification", {"text": ["body"]}, "is for classification of body; .* of text"),
    ],
)
def test_adapters_of_another_kind_are_refused(
    kind: str, data: dict[str, Any], message: str, adapters: Path, base: Path
) -> None:
    save(base, adapters / "umbrella.safetensors", "umbrella", kind, **data)
    mixed = load_mixed(str(adapters), "tenant")
    with pytest.raises(AdapterFileError, match=message):
        mixed([("good", "umbrella")])


def test_folders_without_adapters(adapters: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no folder"):
        load_mixed(str(tmp_path / "nowhere"), "tenant")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="has no adapters"):
        load_mixed(str(tmp_path / "empty"), "tenant")
    (adapters / "umbrella").mkdir()
    (adapters / "umbrella.safetensors").rename(adapters / "umbrella" / "adapter.safetensors")
    (adapters / "umbrella.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="two adapters called umbrella"):
        load_mixed(str(adapters), "tenant")
