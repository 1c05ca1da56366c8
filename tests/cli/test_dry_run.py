"""Plans: what a dry run and an inspection tell from a configuration, before any weight is there."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Said, Say, shell
from tests.families import published, tiny_tokenizer
from tests.samples import rows_of, write_rows

COUNTS = {
    "rte.yaml": ("deberta-v3-base", 25_344, 592_130, 72),
    "roberta-large/rte.yaml": ("roberta-large", 64_512, 1_051_650, 144),
    "deberta-v2-xxlarge/rte.yaml": ("deberta-v2-xxlarge", 184_320, 2_363_906, 288),
}


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
def planned(home: Path) -> tuple[Said, dict[Path, float]]:
    before = files(home)
    data = ("data.train=train.jsonl", "data.validation=dev.jsonl", "training.epochs=2")
    said = shell("train", "recipes/rte.yaml", "model.name=base", *data, "--dry-run", cwd=home)
    return said, before


def test_the_plan_needs_no_weights(planned: tuple[Said, dict], home: Path) -> None:
    said, _ = planned
    assert said.code == 0, said.err
    assert not list(home.rglob("*.safetensors"))
    lines = {line.split()[0]: line for line in said.out.splitlines() if line[:1].isalpha()}
    assert "deberta-v2, 184.4M parameters" in lines["base"]
    assert "25,344 adapter parameters + 592,130 outside the encoder" in lines["trained"]
    assert "in 72 layers (Q K V O FFN)" in lines["adapter"]
    assert "6 of batch 32 (3 an epoch), 200 to warm up, learning rate 0.0012" in lines["steps"]
    assert "70 rows" in lines["data"]
    assert "dev.jsonl: 12 rows to score" in said.out
    assert "runs/rte" in lines["output"]
    # Only what was changed, or will surprise, is told beside the plan.
    assert said.err.splitlines() == [
        "Note: data.max_length 320 -> 64, the model's limit",
        "Note: all 6 steps are warm-up, so the learning rate stays below 0.0012; "
        "training.warmup_ratio=0.1 fits any number of steps",
    ]


def test_a_dry_run_writes_nothing(planned: tuple[Said, dict], home: Path) -> None:
    assert files(home) == planned[1]


def test_a_dry_run_finds_mistakes(home: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    command = ["train", "recipes/rte.yaml", "model.name=base", "data.train=train.jsonl"]
    said = say(*command, "data.validation=nowhere.jsonl", "--dry-run")
    assert (said.code, said.out) == (2, "")
    said = say(*command, "data.validation=dev.jsonl", "adapter.targets=[attn]", "--dry-run")
    assert said.code == 2
    assert "query_proj  768 x 768  (12 layers)" in said.err


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts_are_what_inspect_prints(
    name: str, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, adapter, head, layers = COUNTS[name]
    published(model).save_pretrained(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    said = say("inspect", f"recipes/{name}", "model.name=base")
    assert (said.code, said.err) == (0, "")
    assert f"{adapter:,} parameters in {layers} layers" in said.out
    assert f"{head:,} parameters outside the encoder" in said.out
    told = json.loads(say("inspect", f"recipes/{name}", "model.name=base", "--json").out)
    assert (told["adapter_parameters"], told["head_parameters"]) == (adapter, head)
    assert (told["file_bytes"], told["format_version"]) == (None, None)
    assert told["base"] == {"name": "base", "revision": None, "fingerprint": None}
    assert len(told["modules"]) == layers


def test_recipe_names_resolve_in_any_folder(tmp_path: Path) -> None:
    published("deberta-v3-base").save_pretrained(tmp_path / "base")
    smaller = "adapter.kernel_size=2"
    said = shell("inspect", "recipes/rte.yaml", "model.name=base", smaller, cwd=tmp_path)
    assert said.code == 0, said.err
    assert "83,232 parameters in 72 layers" in said.out
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "rte.yaml").write_text("model: {name: x}\n")
    said = shell("inspect", "recipes/rte.yaml", cwd=tmp_path)  # the user's own goes first
    assert (said.code, "recipes/rte.yaml" in said.err) == (2, True)
