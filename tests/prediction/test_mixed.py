"""Rows that name their adapter get what that adapter predicts alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import dcft_cli
from dcft_cli import DCFTConfig, inject, save_adapter
from dcft_cli.data.rows import Rows
from dcft_cli.errors import AdapterFileError, DataError, RunError
from dcft_cli.prediction.mixed import load_mixed
from dcft_cli.tasks import FAMILIES
from tests.samples import opinion, rows_of, write_rows

LABELS = {"acme": ["no", "yes"], "initech": ["a", "b", "c", "d", "e"], "umbrella": ["x", "y", "z"]}
TAGS = {
    "acme": ["O", "B-THING", "I-THING"],
    "initech": ["O", "B-PLACE", "I-PLACE", "B-THING", "I-THING"],
    "umbrella": ["N", "V", "X"],
}
CONFIGS = {
    "acme": DCFTConfig(kernel_size=4),
    "initech": DCFTConfig(kernel_size=3, stride=2, rank=2),
    "umbrella": DCFTConfig(kernel_size=4, targets=["Q", "V"]),
}
DECISIONS: dict[str, dict[str, Any]] = {"acme": {}, "initech": {"temperature": 2.5}, "umbrella": {}}
TEXT = {
    "question_answering": ["question", "context"],
    "token_classification": ["tokens"],
}


def save(base: Path, folder: Path, name: str, kind: Any, **data: Any) -> Path:
    """Save an adapter with random values, as `dcft train` describes it."""
    family = FAMILIES[kind]
    labels = (
        (TAGS if kind == "token_classification" else LABELS)[name] if family.has_classes else []
    )
    size = {"question_answering": 2, "regression": 1}.get(kind, len(labels))
    number = list(LABELS).index(name)
    torch.manual_seed(number)
    model, report = getattr(transformers, family.auto_class).from_pretrained(
        base, num_labels=size, output_loading_info=True
    )
    inject(model.eval(), CONFIGS[name], head=report["missing_keys"])
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    model.config.id2label = dict(enumerate(labels))
    decision = dict(DECISIONS[name])
    if kind == "multi_label" and name == "umbrella":
        decision["thresholds"] = {"x": 0.2, "y": 0.9, "z": 0.5}
    section = {"text": TEXT.get(kind, ["text"]), "max_length": 24, "document_stride": 8, **data}
    info = {"task": {"type": kind}, "data": section, "model": {}, "decision": decision}
    return save_adapter(model, folder, base_name=str(base), info=info)


def rows_for(kind: str, count: int) -> list[dict[str, Any]]:
    task = {"question_answering": "squad_v2"}.get(kind, kind)
    if kind in ("classification", "regression"):
        import random

        draw = random.Random(0)
        rows: list[dict[str, Any]] = [{"text": opinion(True, draw)} for _ in range(count)]
    else:
        rows = rows_of(task, count)
    names = list(LABELS)
    return [{**row, "tenant": names[(n + n // 4) % 3]} for n, row in enumerate(rows)]


@pytest.fixture
def adapters(base: Path, tmp_path: Path) -> Path:
    """A run folder, and two files."""
    folder = tmp_path / "adapters"
    (folder / "acme").mkdir(parents=True)
    save(base, folder / "acme", "acme", "classification")
    for name in ("initech", "umbrella"):
        save(base, folder / f"{name}.safetensors", name, "classification")
    (folder / "notes.txt").touch()
    return folder


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


def close(a: Any, b: Any) -> bool:
    """Return whether two predictions are equal, numbers up to 1e-5."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return bool(a == pytest.approx(b, abs=1e-5) if isinstance(a, float) else a == b)


def test_the_command(adapters: Path, tmp_path: Path) -> None:
    rows = [{"id": n, **row} for n, row in enumerate(rows_for("classification", 9))]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    options = ["--adapters", str(adapters), "--adapter-column", "tenant"]
    command = [sys.executable, "-m", "dcft_cli", "predict", *options]
    done = subprocess.run([*command, file], capture_output=True, text=True, check=True)
    lines = list(map(json.loads, done.stdout.splitlines()))
    for row, line in zip(rows, lines, strict=True):
        assert line | row == line
        assert list(line["probabilities"]) == LABELS[row["tenant"]]
        assert line["prediction"] in LABELS[row["tenant"]]
    output = tmp_path / "out.csv"
    subprocess.run([*command, file, "data.max_length=16", "-o", str(output)], check=True)
    header = output.read_text().splitlines()[0]
    assert header.startswith("id,text,tenant,prediction,probability,probabilities.no")


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


def test_adapters_are_loaded_when_a_row_names_them(adapters: Path) -> None:
    (adapters / "umbrella.safetensors").write_bytes(b"damaged")
    mixed = load_mixed(str(adapters), "tenant")
    assert mixed([("good", "acme"), ("bad", "initech")])
    assert mixed.adapters.adapter_names == ["acme", "initech"]
    with pytest.raises(AdapterFileError, match="damaged"):
        mixed([("good", "umbrella")])


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


@pytest.mark.parametrize(
    "arguments",
    [
        ["--adapters", "runs", "rows.csv"],
        ["--adapter-column", "tenant", "runs/a", "rows.csv"],
        ["--adapters", "runs", "--adapter-column", "tenant", "--text", "good"],
        [],
    ],
)
def test_options_that_do_not_go_together(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "dcft_cli", "predict", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "belong together" in done.stderr or "No adapter is named" in done.stderr
