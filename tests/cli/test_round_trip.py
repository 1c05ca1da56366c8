"""The main job as a user types it: train, inspect, evaluate and merge, each in a new process."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import TRAIN, Output, RunCli, metrics, ok, shell


@pytest.fixture(scope="module")
def trained(home: Path) -> Output:
    return ok(shell(*TRAIN, cwd=home))


@pytest.fixture(scope="module")
def merged(home: Path, trained: Output) -> Output:
    return ok(shell("merge", "base", "runs/rte", "merged", cwd=home))


def test_train_prints_plan_progress_and_result(home: Path, trained: Output) -> None:
    plan = dict(line.split(maxsplit=1) for line in trained.err.splitlines() if line[:1].isalpha())
    assert plan["base"].startswith("base (bert, 8,410 parameters, float32)")
    assert plan["task"].rstrip() == "rte (classification), best by accuracy"
    assert plan["data"].startswith("train.jsonl: 21 rows, ")
    assert "dev.jsonl: 12 rows to score" in trained.err
    assert plan["adapter"].startswith("DCFT kernel 8, stride 8, rank 1, scale 4 in 12 layers")
    assert plan["trained"].rstrip() == "828 adapter + 34 head parameters"
    assert plan["steps"].startswith("6 (3 per epoch, batch size 8, 1 warm-up)")
    assert plan["device"].startswith("CPU")
    found = metrics(home)
    assert (found["adapter_parameters"], found["head_parameters"]) == (828, 34)
    lines = trained.err.splitlines()
    rows = {line[:11].rstrip(): line[29:].split() for line in lines}  # name, epoch, loss, scores
    (constant,) = rows["constant"]
    assert float(constant) == found["baselines"]["constant"]["accuracy"]
    assert (rows["step 3"][-1] == "best") == (float(rows["step 3"][0]) > float(constant))
    assert rows["step 6"][0] == f"{found['last_metrics']['accuracy']:.4f}"
    assert f"best (step {found['best_step']})" in trained.out
    assert f"{found['metrics']['accuracy']:.4f}" in trained.out


def test_train_prints_the_next_commands(trained: Output) -> None:
    assert trained.out.endswith(
        "Next:\n"
        "  dcft eval runs/rte\n"
        "  dcft predict runs/rte FILE\n"
        "  dcft merge runs/rte runs/rte-merged\n"
    )


def test_inspect(home: Path, trained: Output) -> None:
    file = home / "runs" / "rte" / "adapter.safetensors"
    output = ok(shell("inspect", "runs/rte", "--json", cwd=home))
    assert output.err == ""
    result = json.loads(output.out)
    counts = (result["adapter_parameters"], result["head_parameters"], result["file_bytes"])
    assert counts == (828, 34, file.stat().st_size)
    assert (result["format_version"], result["base"]["name"]) == (3, "base")
    assert len(result["modules"]) == 12
    keys = "name role out_features in_features kernel_size stride rank parameters".split()
    assert all(module.keys() >= set(keys) for module in result["modules"])
    assert sum(module["parameters"] for module in result["modules"]) == 828
    output = ok(shell("inspect", str(file), cwd=home / "base"))
    assert "828 parameters in 12 layers" in output.out
    assert "LoRA r=1: 464 (" in output.out
    assert "full fine-tuning of these layers: 4,352" in output.out
    row = next(line for line in output.out.splitlines() if "attention.self.query" in line)
    assert row.split()[:7] == ("Q attention.self.query 2 16 x 16 136".split())


def test_eval(home: Path, trained: Output) -> None:
    output = ok(shell("eval", "runs/rte", "--json", cwd=home))
    assert output.err == ""
    result = json.loads(output.out)
    assert result["metrics"] == metrics(home)["metrics"]
    assert result["data"] == {"validation": str(home / "dev.jsonl")}


def test_eval_of_a_file_with_moved_base_and_data(
    home: Path, trained: Output, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home / "runs")
    adapter = str(home / "runs" / "rte" / "adapter.safetensors")
    output = ok(run_cli("eval", adapter, "data.validation=../dev.jsonl", "model.name=../base"))
    facts, classes, *_ = output.out.split("\n\n")
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in facts.splitlines()}
    assert [line.split()[0] for line in classes.splitlines()] == [
        "class",
        "entailment",
        "not_entailment",
    ]
    assert lines["accuracy"].rstrip() == f"{metrics(home)['metrics']['accuracy']:.4f}"
    assert lines["data"].rstrip() == "../dev.jsonl: 12 rows"
    assert lines["base"].rstrip() == "../base"


def test_eval_names_several_sets(
    home: Path, trained: Output, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    sets = "data.validation={seen: train.jsonl, new: dev.jsonl}"
    output = ok(run_cli("eval", "runs/rte", sets))
    assert "data           seen  train.jsonl: 21 rows\n" in output.out
    assert "               new   dev.jsonl: 12 rows\n" in output.out


def test_merge(home: Path, merged: Output) -> None:
    assert "merged (12 layers, " in merged.out
    proof = next(line for line in merged.out.splitlines() if line.startswith("verified"))
    assert float(proof.split()[-1]) <= 1e-5
    assert 'BertForSequenceClassification.from_pretrained("merged")' in merged.out


def test_merge_finds_the_base_that_the_run_names(
    home: Path, merged: Output, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (home / "merged" / "model.safetensors").read_bytes()
    monkeypatch.chdir(tmp_path)  # the recipe in the run folder has the base's absolute path
    for source in ("runs/rte", "runs/rte/checkpoints/checkpoint-6"):
        output = ok(run_cli("merge", str(home / source), str(tmp_path / "out")))
        assert f"base      {home / 'base'}" in output.out
        if source == "runs/rte":
            assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights
        shutil.rmtree(tmp_path / "out")
    alone = shutil.copy(home / "runs" / "rte" / "adapter.safetensors", tmp_path)
    monkeypatch.chdir(home)  # a file that lies alone has it as the recipe said
    ok(run_cli("merge", str(alone), str(tmp_path / "out")))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ("runs/rte base merged-too", "dcft merge base runs/rte merged-too"),
        ("base merged-too runs/rte", "dcft merge base runs/rte merged-too"),
        ("'my merged' runs/rte", "dcft merge runs/rte 'my merged'"),
    ],
)
def test_merge_notices_swapped_arguments(
    home: Path,
    trained: Output,
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    right: str,
) -> None:
    monkeypatch.chdir(home)
    output = run_cli("merge", *shlex.split(arguments))
    assert output.code == 2
    assert "runs/rte is the adapter, and the order is [BASE] ADAPTER OUT." in output.err
    assert output.err.endswith(f"{right}\n")
    assert not (home / "merged-too").exists()


@pytest.mark.parametrize(
    ("to", "what", "load"),
    [
        ("peft", "LoRA of rank 8, 12 layers", 'PeftModel.from_pretrained(base, "rte-peft")'),
        ("onnx", "ONNX model, 12 layers", 'onnxruntime.InferenceSession("rte-onnx/model.onnx")'),
    ],
)
def test_export_prints_what_was_verified(
    to: str, what: str, load: str, home: Path, trained: Output
) -> None:
    output = ok(shell("export", "runs/rte", f"rte-{to}", "--to", to, cwd=home))
    named = "adapter_config.json and README.md name" if to == "peft" else "README.md names"
    (note,) = output.err.splitlines()
    assert note.startswith(
        f"Note: {named} the base model by its path on this machine, {home}/base."
    )
    lines = dict(line.split(maxsplit=1) for line in output.out.splitlines())
    lines = {name: text.rstrip() for name, text in lines.items()}
    assert lines["exported"].startswith(f"rte-{to} ({what}, ")
    assert float(lines["verified"].split()[-1]) <= 1e-5
    assert (lines["load"], lines["script"]) == (load, f"rte-{to}/README.md")
