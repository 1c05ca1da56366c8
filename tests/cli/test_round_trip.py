"""The main job as a user types it: train, inspect, evaluate, merge, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Said, Say, shell
from tests.families import save_base
from tests.samples import rows_of, write_rows

TRAIN = (
    "train recipes/rte.yaml model.name=base data.train=train.jsonl data.validation=dev.jsonl"
    " training.max_steps=6 training.eval_steps=3 training.batch_size=8 training.warmup_steps=1"
    " training.device=cpu"
).split()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's: a base model and data, and no checkout anywhere near."""
    home = tmp_path_factory.mktemp("home")
    save_base(home / "base")
    write_rows(home / "train.jsonl", rows_of("rte", 21))
    write_rows(home / "dev.jsonl", rows_of("rte", 12, seed=1))
    return home


@pytest.fixture(scope="module")
def trained(home: Path) -> Said:
    return ok(shell(*TRAIN, cwd=home))


@pytest.fixture(scope="module")
def merged(home: Path, trained: Said) -> Said:
    return ok(shell("merge", "base", "runs/rte", "merged", cwd=home))


def ok(said: Said) -> Said:
    assert said.code == 0, said.err
    assert "Traceback" not in said.err
    assert "Warning" not in said.err
    return said


def metrics(home: Path) -> dict:
    return json.loads((home / "runs" / "rte" / "metrics.json").read_text())


def test_train_prints_plan_progress_and_result(home: Path, trained: Said) -> None:
    plan = dict(line.split(maxsplit=1) for line in trained.err.splitlines() if line[:1].isalpha())
    assert plan["base"].startswith("base (bert, 8.4K parameters, float32)")
    assert plan["task"].rstrip() == "rte (classification), best by accuracy"
    assert plan["data"].startswith("train.jsonl: 21 rows, ")
    assert "dev.jsonl: 12 rows to score" in trained.err
    assert plan["adapter"].startswith("DCFT kernel 8, stride 8, rank 1, scale 4 in 12 layers")
    assert plan["trained"].rstrip() == "828 adapter parameters + 34 outside the encoder"
    assert plan["steps"].startswith("6 of batch 8 (3 an epoch), 1 to warm up")
    assert plan["device"].startswith("CPU")
    found = metrics(home)
    lines = trained.err.splitlines()
    scores = [float(line.split()[-1]) for line in lines if line.startswith("constant  accuracy ")]
    assert scores == [found["baselines"]["constant"]["accuracy"]]
    above = [line.endswith("(best so far)") for line in lines if line.startswith("step 3  acc")]
    at_three = [float(line.split()[3]) for line in lines if line.startswith("step 3  acc")]
    assert above == [at_three[0] > scores[0]]
    assert f"step 6  accuracy {found['last_metrics']['accuracy']:.4f}" in trained.err
    assert f"best (step {found['best_step']})" in trained.out
    assert f"{found['metrics']['accuracy']:.4f}" in trained.out


def test_train_says_what_to_type_next(trained: Said) -> None:
    assert trained.out.endswith(
        "Next:\n"
        "  dcft inspect runs/rte\n"
        "  dcft eval runs/rte\n"
        "  dcft merge base runs/rte runs/rte-merged\n"
    )


def test_metrics(home: Path, trained: Said) -> None:
    found = metrics(home)
    assert found["task"] == "rte"
    assert found["metrics"].keys() == found["last_metrics"].keys() == {"accuracy"}
    assert found["best_step"] in (3, 6)
    assert (found["adapter_parameters"], found["head_parameters"]) == (828, 34)


def test_inspect(home: Path, trained: Said) -> None:
    file = home / "runs" / "rte" / "adapter.safetensors"
    said = ok(shell("inspect", "runs/rte", "--json", cwd=home))
    assert said.err == ""
    told = json.loads(said.out)
    counts = (told["adapter_parameters"], told["head_parameters"], told["file_bytes"])
    assert counts == (828, 34, file.stat().st_size)
    assert (told["format_version"], told["base"]["name"]) == (2, "base")
    assert len(told["modules"]) == 12
    for module in told["modules"]:
        assert module.keys() >= {
            "name",
            "role",
            "out_features",
            "in_features",
            "kernel_size",
            "stride",
            "rank",
            "parameters",
        }
    assert sum(module["parameters"] for module in told["modules"]) == 828
    said = ok(shell("inspect", str(file), cwd=home / "base"))
    assert "828 parameters in 12 layers" in said.out
    assert "LoRA r = 1: 464 (" in said.out
    assert "full fine-tuning: 4,352" in said.out
    row = next(line for line in said.out.splitlines() if "attention.self.query" in line)
    assert row.split()[:11] == (
        "Q bert.encoder.layer.*.attention.self.query 2 16 x 16 8 8 1 68 136".split()
    )


def test_eval(home: Path, trained: Said) -> None:
    said = ok(shell("eval", "runs/rte", "--json", cwd=home))
    assert said.err == ""
    told = json.loads(said.out)
    assert told["metrics"] == metrics(home)["metrics"]
    assert told["data"] == {"validation": str(home / "dev.jsonl")}


def test_eval_of_a_file_with_other_places(
    home: Path, trained: Said, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home / "runs")
    adapter = str(home / "runs" / "rte" / "adapter.safetensors")
    said = ok(say("eval", adapter, "data.validation=../dev.jsonl", "--base", "../base"))
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.out.splitlines()}
    assert lines["accuracy"].rstrip() == f"{metrics(home)['metrics']['accuracy']:.4f}"
    assert lines["data"].rstrip() == "../dev.jsonl (12 rows)"
    assert lines["base"].rstrip() == "../base"


def test_merge(home: Path, merged: Said) -> None:
    assert "12 layers folded" in merged.out
    proof = next(line for line in merged.out.splitlines() if line.startswith("proof"))
    assert float(proof.split()[-1]) <= 1e-5
    assert 'BertForSequenceClassification.from_pretrained("merged")' in merged.out


def test_the_merged_model_scores_the_same_in_transformers_alone(home: Path, merged: Said) -> None:
    code = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained("merged").eval()
tokenizer = AutoTokenizer.from_pretrained("merged")
rows = [json.loads(line) for line in open("dev.jsonl", encoding="utf-8")]
right = 0
for row in rows:
    inputs = tokenizer(row["sentence1"], row["sentence2"], return_tensors="pt")
    right += model(**inputs).logits.argmax().item() == row["label"]
assert not [name for name in sys.modules if name.startswith("dcft")]
print(right / len(rows))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=home, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == metrics(home)["metrics"]["accuracy"]
