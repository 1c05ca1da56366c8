"""A method of PEFT as a user types it, with warnings as errors."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import TRAIN, RunCli, metrics, ok, shell


def test_adalora_from_recipe_to_peft(
    home: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    adapter = "adapter={method: adalora, rank: 2, orthogonality: 0.3}"
    output = ok(shell(*TRAIN, adapter, cwd=home))
    assert "gemm" not in output.err  # bitsandbytes, which PEFT imports
    found = metrics(home)
    assert found["adapter_parameters"] == 3 * (8 * 33 + 4 * 53)  # at the initial rank, 3

    scores = json.loads(ok(run_cli("eval", "runs/rte", "--json")).out)
    assert scores["metrics"] == pytest.approx(found["metrics"], abs=1e-6)

    exported = ok(shell("export", "runs/rte", "out", "--to", "peft", cwd=home))
    assert exported.err.count("Note: ") == 1 and "by its path on this machine" in exported.err
    assert "out (PEFT adapter, adalora, 12 layers, " in exported.out
    config = json.loads((home / "out" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["init_r"], config["target_r"]) == ("ADALORA", 3, 2)

    ok(run_cli("merge", "base", "runs/rte", "merged"))
    assert (home / "merged" / "model.safetensors").exists()
