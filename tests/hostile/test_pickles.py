"""Pickles in place of weights, adapters and checkpoints: nothing in them runs."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Output, RunCli
from tests.hostile.pickles import FORMS

# torch asks to file an issue about the protocol of what it refuses.
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
forms = pytest.mark.parametrize("form", FORMS)


def test_the_pickles_do_what_they_are_made_for(tmp_path: Path) -> None:
    for form in ("plain", "oldest", "expression"):
        pickle.loads(FORMS[form](tmp_path / form))
        assert (tmp_path / form).is_dir()


def assert_refused(output: Output, marker: Path) -> None:
    assert not marker.exists()
    assert output.code == 2, output.err
    assert output.err.startswith("Error: ") and "Unexpected" not in output.err
    assert "weights_only" not in output.err  # no advice to load it after all


@forms
@pytest.mark.parametrize("place", ["pytorch_model.bin", "model.safetensors", "shards"])
def test_as_weights_of_a_base(
    finished: Path, base: Path, run_cli: RunCli, tmp_path: Path, form: str, place: str
) -> None:
    marker, own = tmp_path / "marker", tmp_path / "base"
    shutil.copytree(base, own)
    (own / "model.safetensors").unlink()
    file = "pytorch_model-00001-of-00001.bin" if place == "shards" else place
    (own / file).write_bytes(FORMS[form](marker))
    if place == "shards":
        weights = {"encoder.layer.0.attention.self.query.weight": file}
        index = {"metadata": {"total_size": 1024}, "weight_map": weights}
        (own / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    output = run_cli("eval", str(finished), f"model.name={own}")
    assert_refused(output, marker)
    assert str(own) in output.err


@forms
@pytest.mark.parametrize("command", ["inspect", "eval", "merge"])
def test_as_an_adapter(
    finished: Path, base: Path, run_cli: RunCli, tmp_path: Path, form: str, command: str
) -> None:
    marker, run = tmp_path / "marker", tmp_path / "run"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("checkpoints"))
    (run / "adapter.safetensors").write_bytes(FORMS[form](marker))
    arguments = [str(base), str(run), str(tmp_path / "out")] if command == "merge" else [str(run)]
    output = run_cli(command, *arguments)
    assert_refused(output, marker)
    assert "no safetensors file" in output.err


@forms
def test_in_a_checkpoint(finished: Path, run_cli: RunCli, tmp_path: Path, form: str) -> None:
    """Every name that a Trainer has ever read; whether they are read, or the run goes on without
    them, is tested elsewhere."""
    marker, run = tmp_path / "marker", tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "adapter.safetensors").unlink()
    for folder in (run, *(run / "checkpoints").iterdir()):
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            (folder / name).write_bytes(FORMS[form](marker))
    output = run_cli("train", str(run / "recipe.yaml"), "--output", str(run), "--resume")
    assert not marker.exists()
    assert "Traceback" not in output.err
