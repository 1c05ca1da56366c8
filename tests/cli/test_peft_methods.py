"""A method of PEFT as a user types it, with warnings as errors."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Output, RunCli, shell
from tests.families import save_base
from tests.samples import rows_of, write_rows

TRAIN = (
    "train recipes/rte.yaml model.name=base data.train=train.jsonl data.validation=dev.jsonl"
    " training.max_steps=9 training.eval_steps=3 training.batch_size=8 training.device=cpu"
).split()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    save_base(home / "base", initializer_range=0.3)
    write_rows(home / "train.jsonl", rows_of("rte", 21))
    write_rows(home / "dev.jsonl", rows_of("rte", 12, seed=1))
    return home


def ok(output: Output) -> Output:
    assert output.code == 0, output.err
    assert "Traceback" not in output.err
    assert "Warning" not in output.err
    return output


def test_adalora_from_recipe_to_peft(
    home: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    adapter = "adapter={method: adalora, rank: 2, orthogonality: 0.3}"
    output = ok(shell(*TRAIN, adapter, cwd=home))
    assert "gemm" not in output.err  # bitsandbytes, which PEFT imports
    metrics = json.loads((home / "runs" / "rte" / "metrics.json").read_text())
    assert metrics["adapter_parameters"] == 3 * (8 * 33 + 4 * 53)  # at the initial rank, 3

    scores = json.loads(ok(run_cli("eval", "runs/rte", "--json")).out)
    assert scores["metrics"] == pytest.approx(metrics["metrics"], abs=1e-6)

    exported = ok(shell("export", "runs/rte", "out", "--to", "peft", cwd=home))
    assert exported.err.count("Note: ") == 1 and "by its path on this machine" in exported.err
    assert "out (PEFT adapter, adalora, 12 layers, " in exported.out
    config = json.loads((home / "out" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["init_r"], config["target_r"]) == ("ADALORA", 3, 2)

    ok(run_cli("merge", "base", "runs/rte", "merged"))
    assert (home / "merged" / "model.safetensors").exists()


def test_a_schedule_that_cannot_work_is_an_error_in_a_dry_run(home: Path) -> None:
    adapter = "adapter={method: adalora, pruning_start: 8.0, pruning_end: 4.0}"
    output = shell(*TRAIN, adapter, "--output", "runs/other", "--dry-run", cwd=home)
    assert output.code == 2
    assert "`pruning_end: 4.0` is not after `pruning_start: 8.0`" in " ".join(output.err.split())
