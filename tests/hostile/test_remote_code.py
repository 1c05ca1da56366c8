"""Bases with code of their own: it runs only if recipe and command line both ask for it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig

from dcft_cli.adapter_file.read import read_contents
from dcft_cli.errors import ModelError
from dcft_cli.models.remote_code import remote_code, trusts_code
from dcft_cli.recipe.schema import ModelSection
from dcft_cli.runs.adapted import recipe_of
from tests.cli.conftest import Output, RunCli
from tests.hostile.remote_code import save_own_base
from tests.jobs import overrides

FLAG, KEY = "--trust-remote-code", "model.trust_remote_code=true"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A folder that is there as soon as any of the base's code has run."""
    return tmp_path / "marker"


@pytest.fixture
def own(tmp_path: Path, marker: Path) -> Path:
    return save_own_base(tmp_path / "own", marker)


def dcft(folder: Path, *arguments: str) -> Output:
    """Run a command in a process with a terminal's patience: `y` to whatever it asks."""
    env = os.environ | {"HF_MODULES_CACHE": str(folder / "modules"), "COLUMNS": "100"}
    command = [sys.executable, "-m", "dcft_cli", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, input="y\n" * 9)
    return Output(done.returncode, done.stdout, done.stderr)


def training(tmp_path: Path, base: Path, *more: str) -> list[str]:
    settings = overrides("mrpc", tmp_path, base)
    return ["recipes/mrpc.yaml", *settings, "training.max_steps=2", "training.eval_steps=2", *more]


def assert_refused(output: Output, marker: Path, words: str) -> None:
    assert not marker.exists()
    assert output.code == 2, output.err
    assert words in output.err
    assert FLAG in output.err and "model.trust_remote_code" in output.err
    assert "[y/N]" not in output.out + output.err


def test_code_is_not_run_and_nobody_is_asked(tmp_path: Path, own: Path, marker: Path) -> None:
    for arguments in (
        ["train", *training(tmp_path, own), "--output", str(tmp_path / "run")],
        ["inspect", "--targets", str(own)],
    ):
        assert_refused(dcft(tmp_path, *arguments), marker, "brings code of its own")


def test_code_of_a_tokenizer_is_not_run_either(tmp_path: Path, marker: Path) -> None:
    """transformers has a class for this model, and none for the tokenizers of its type."""
    base = save_own_base(tmp_path / "known", marker, known=True)
    LlamaConfig().save_pretrained(base)
    file = base / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {"tokenizer_class": "OwnTokenizer"}
    file.write_text(json.dumps(settings))
    run = str(tmp_path / "run")
    output = dcft(tmp_path, "train", *training(tmp_path, base), "--output", run)
    assert_refused(output, marker, "brings code of its own")


def test_no_other_command_runs_it(
    finished: Path, run_cli: RunCli, tmp_path: Path, own: Path, marker: Path
) -> None:
    out = str(tmp_path / "out")
    for arguments in (
        ["eval", str(finished), f"model.name={own}"],
        ["predict", str(finished), "--text", "a", "--text-pair", "b", "model.name=" + str(own)],
        ["merge", str(own), str(finished), out],
        ["export", str(finished), out, "--base", str(own), "--to", "peft"],
        ["train", *training(tmp_path, own), "--dry-run"],
    ):
        assert_refused(run_cli(*arguments), marker, "brings code of its own")


@pytest.mark.parametrize(("asked", "who"), [(KEY, "recipe"), (FLAG, "command line")])
def test_one_alone_is_refused(
    run_cli: RunCli, tmp_path: Path, own: Path, marker: Path, asked: str, who: str
) -> None:
    output = run_cli("train", *training(tmp_path, own), asked, "--dry-run")
    assert_refused(output, marker, f"only the {who} asks for it")


def test_both_together_train_and_score(tmp_path: Path, own: Path, marker: Path) -> None:
    run = str(tmp_path / "run")
    trained = dcft(tmp_path, "train", *training(tmp_path, own, KEY), FLAG, "--output", run)
    assert trained.code == 0, trained.err
    assert "[y/N]" not in trained.out + trained.err
    assert marker.exists()
    shutil.rmtree(marker)
    # The recipe of the run asks for it; the command line has to, each time.
    assert_refused(dcft(tmp_path, "eval", run), marker, "only the recipe asks for it")
    scored = dcft(tmp_path, "eval", run, FLAG)
    assert scored.code == 0, scored.err
    assert "[y/N]" not in scored.out + scored.err
    assert marker.exists()
    # An adapter file does not ask for it, wherever it comes from.
    contents = read_contents(Path(run) / "adapter.safetensors")
    assert contents.model["class"] == "OwnForSequenceClassification"
    assert "trust_remote_code" not in contents.info["model"]
    contents.info["model"]["trust_remote_code"] = True
    alone = tmp_path / "alone.safetensors"
    assert not recipe_of(alone, contents).model.trust_remote_code


def test_a_sweep_hands_the_command_lines_answer_to_its_processes(
    tmp_path: Path, own: Path, marker: Path
) -> None:
    grid = ["--grid", "training.learning_rate=1e-3,1e-2", "--jobs", "2"]
    command = ["sweep", *training(tmp_path, own, KEY), *grid, "--output", str(tmp_path / "sweep")]
    assert_refused(dcft(tmp_path, *command), marker, "only the recipe asks for it")
    done = dcft(tmp_path, *command, FLAG)
    assert done.code == 0, done.err
    assert len(list((tmp_path / "sweep").glob("*/adapter.safetensors"))) == 2


def test_transformers_own_classes_are_used_where_there_are_any(
    run_cli: RunCli, tmp_path: Path, marker: Path
) -> None:
    base = save_own_base(tmp_path / "known", marker, known=True)
    output = run_cli("train", *training(tmp_path, base), "--dry-run")
    assert output.code == 0, output.err
    assert not marker.exists()
    assert "brings code of its own, which was not run" in output.out + output.err


def test_another_base_is_not_trusted_by_the_same_recipe(
    run_cli: RunCli, tmp_path: Path, own: Path, marker: Path
) -> None:
    """The override of the name takes the trust in the former base away."""
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {name: reviewed, trust_remote_code: true}\ntask: {name: mrpc}\n")
    settings = overrides("mrpc", tmp_path, own)
    output = run_cli("train", str(path), *settings, FLAG, "--dry-run")
    assert_refused(output, marker, "only the command line asks for it")


def test_the_answer_in_python() -> None:
    plain, asking = ModelSection(name="x"), ModelSection(name="x", trust_remote_code=True)
    assert not trusts_code(plain)
    with pytest.raises(ModelError, match="only the recipe"):
        trusts_code(asking)
    with remote_code(allowed=True):
        assert trusts_code(asking)
        with pytest.raises(ModelError, match="only the command line"):
            trusts_code(plain)
    assert not trusts_code(plain)
