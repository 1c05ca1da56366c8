"""Dry runs and inspections of recipes, which need only a configuration."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Output, RunCli, shell
from tests.families import published, tiny_tokenizer
from tests.samples import rows_of, write_rows


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a model of full size of which only configuration and tokenizer are there."""
    home = tmp_path_factory.mktemp("home")
    published("deberta-v3-base").save_pretrained(home / "base")
    tiny_tokenizer().save_pretrained(home / "base")
    write_rows(home / "train.jsonl", rows_of("rte", 70))
    write_rows(home / "dev.jsonl", rows_of("rte", 12, seed=1))
    return home


def files(home: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in home.rglob("*")}


@pytest.fixture(scope="module")
def planned(home: Path) -> tuple[Output, dict[Path, float]]:
    before = files(home)
    data = ("data.train=train.jsonl", "data.validation=dev.jsonl", "training.epochs=2")
    output = shell("train", "recipes/rte.yaml", "model.name=base", *data, "--dry-run", cwd=home)
    return output, before


def test_the_plan_needs_no_weights(planned: tuple[Output, dict], home: Path) -> None:
    output, _ = planned
    assert output.code == 0, output.err
    assert not list(home.rglob("*.safetensors"))
    lines = {line.split()[0]: line for line in output.out.splitlines() if line[:1].isalpha()}
    assert "deberta-v2, 184,423,682 parameters" in lines["base"]
    assert "25,344 adapter + 592,130 head parameters" in lines["trained"]
    assert "in 72 layers (Q K V O FFN)" in lines["adapter"]
    assert "6 (3 per epoch, batch size 32, 200 warm-up), learning rate 0.0012" in lines["steps"]
    assert "70 rows" in lines["data"]
    assert lines["classes"].split()[1::2] == ["entailment", "not_entailment"]
    assert "dev.jsonl: 12 rows to score" in output.out
    assert "runs/rte" in lines["output"]
    # Changes and surprises are noted next to the plan.
    assert output.err.splitlines() == [
        "Note: data.max_length 320 -> 64, the model's limit",
        "Note: all 6 steps are warm-up, so the learning rate stays below 0.0012; "
        "training.warmup_ratio=0.1 fits any number of steps",
    ]


def test_a_dry_run_writes_nothing(planned: tuple[Output, dict], home: Path) -> None:
    assert files(home) == planned[1]


def test_a_dry_run_reports_mistakes(
    home: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    command = ["train", "recipes/rte.yaml", "model.name=base", "data.train=train.jsonl"]
    output = run_cli(*command, "data.validation=nowhere.jsonl", "--dry-run")
    assert (output.code, output.out) == (2, "")
    output = run_cli(*command, "data.validation=dev.jsonl", "adapter.targets=[attn]", "--dry-run")
    assert output.code == 2
    assert "query_proj  768 x 768  (12 layers)" in output.err


def test_inspect_prints_published_counts(
    home: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    command = ["inspect", "recipes/rte.yaml", "model.name=base"]
    output = run_cli(*command)
    assert (output.code, output.err) == (0, "")
    assert "25,344 parameters in 72 layers" in output.out
    assert "592,130 parameters" in output.out
    result = json.loads(run_cli(*command, "--json").out)
    assert (result["adapter_parameters"], result["head_parameters"]) == (25_344, 592_130)
    assert (result["file_bytes"], result["format_version"]) == (None, None)
    assert result["base"] == {"name": "base", "revision": None, "fingerprint": None}
    assert len(result["modules"]) == 72
