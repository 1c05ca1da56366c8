"""The main job as a user types it: train, inspect, evaluate and merge, each in a new process."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Output, RunCli, shell
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
def trained(home: Path) -> Output:
    return ok(shell(*TRAIN, cwd=home))


@pytest.fixture(scope="module")
def merged(home: Path, trained: Output) -> Output:
    return ok(shell("merge", "base", "runs/rte", "merged", cwd=home))


def ok(output: Output) -> Output:
    assert output.code == 0, output.err
    assert "Traceback" not in output.err
    assert "Warning" not in output.err
    return output


def metrics(home: Path) -> dict:
    return json.loads((home / "runs" / "rte" / "metrics.json").read_text())


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
    scores = [float(line.split()[-1]) for line in lines if line.startswith("constant  accuracy ")]
    assert scores == [found["baselines"]["constant"]["accuracy"]]
    above = [line.endswith("(best so far)") for line in lines if line.startswith("step 3  acc")]
    at_three = [float(line.split()[3]) for line in lines if line.startswith("step 3  acc")]
    assert above == [at_three[0] > scores[0]]
    assert f"step 6  accuracy {found['last_metrics']['accuracy']:.4f}" in trained.err
    assert f"best (step {found['best_step']})" in trained.out
    assert f"{found['metrics']['accuracy']:.4f}" in trained.out


def test_train_prints_the_next_commands(trained: Output) -> None:
    assert trained.out.endswith(
        "Next:\n"
        "  dcft inspect runs/rte\n"
        "  dcft eval runs/rte\n"
        "  dcft merge base runs/rte runs/rte-merged\n"
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
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in output.out.splitlines()}
    assert lines["accuracy"].rstrip() == f"{metrics(home)['metrics']['accuracy']:.4f}"
    assert lines["data"].rstrip() == "../dev.jsonl (12 rows)"
    assert lines["base"].rstrip() == "../base"


def test_merge(home: Path, merged: Output) -> None:
    assert "12 layers merged" in merged.out
    proof = next(line for line in merged.out.splitlines() if line.startswith("verified"))
    assert float(proof.split()[-1]) <= 1e-5
    assert 'BertForSequenceClassification.from_pretrained("merged")' in merged.out
