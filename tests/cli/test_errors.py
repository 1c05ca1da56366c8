"""Mistakes and failures as a user meets them: one message, a hint, the right exit code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dcft_cli.merging import merge as merging
from tests.cli.conftest import Say, shell
from tests.families import save_base
from tests.jobs import Job, overrides, recipe, train
from tests.samples import Row, rows_of, write_rows

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def job(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    return train(recipe("rte", folder, base), folder / "run")


@pytest.fixture
def command(base: Path, tmp_path: Path) -> list[str]:
    """A training command that is right in every word."""
    return [
        "train",
        "recipes/rte.yaml",
        *overrides("rte", tmp_path, base),
        "--output",
        str(tmp_path / "run"),
    ]


@pytest.mark.parametrize(
    ("mistake", "messages"),
    [
        ("training.epoch=3", ["training.epoch: unknown key", "did you mean epochs?"]),
        ("training.learning_rate=fast", ["training.learning_rate: must be a number", '"fast"']),
        ("adapter.stride=9", ["`stride: 9` is larger than `kernel_size: 8`"]),
        ("learning_rate", ["must be KEY=VALUE"]),
        ("data.train=nowhere.jsonl", ["nowhere.jsonl"]),
        ("data.text=[sentence1, sentence3]", ["no column `sentence3`", "Did you mean"]),
        ("data.label=gold", ["no column `gold`", "data.label"]),
        ("adapter.targets=[Q, qkv]", ["target `qkv`", "attention.self.query  16 x 16"]),
        ("model.name=package://no_such_package/model", ["pip install no-such-package"]),
        ("model.name=./nowhere", ["./nowhere", "model.name must be a folder"]),
        ("model.name=someone/not-here", ["someone/not-here", "local folder: model.name=DIR"]),
        ("task.metric=f3", ["no score named f3", "accuracy"]),
        ("task.name=squad_v1", ["column"]),
        ("training.precision=float16", ["precision=float16 needs a CUDA device"]),
        ("training.device=cuda", ["finds no such device", "training.device=auto"]),
        ("training.report_to=[a_tracker]", ["a_tracker", "not installed"]),
    ],
)
def test_mistakes_in_a_training_command(
    refused: Refused,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mistake: str,
    messages: list[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = refused(*command, mistake)
    assert all(message in said for message in messages), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"label": 7}, ["unknown label", "row 2 (line 2)", "entailment (0)"]),
        ({"label": None}, ["row 2 (line 2)"]),
        ({"sentence1": 5}, ["`sentence1` is 5, not a text"]),
        ({"sentence1": " "}, ["`sentence1` is empty"]),
    ],
)
def test_mistakes_in_data(
    refused: Refused, command: list[str], tmp_path: Path, change: Row, messages: list[str]
) -> None:
    rows = rows_of("rte", 4)
    rows[1] |= change
    said = refused(*command, f"data.train={write_rows(tmp_path / 'bad.jsonl', rows)}")
    assert all(message in said for message in ["bad.jsonl", *messages]), said


def test_an_empty_set(refused: Refused, command: list[str], tmp_path: Path) -> None:
    said = refused(
        *command, f"data.validation={write_rows(tmp_path / 'none.jsonl', [])}", hint=False
    )
    assert "none.jsonl" in said


def test_all_mistakes_at_once(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("model: {nome: x}\ntask: {name: rta}\ntraining:\n  epochs: many\n")
    said = refused("train", str(file), "adapter.rank=0")
    for part in (":1: model.nome", ":2: task.name", ":4: training.epochs", "adapter.rank=0"):
        assert part in said
    assert "recipes/rte.yaml" in refused("train", "recipes/rta.yaml")


def test_folders(refused: Refused, command: list[str], job: Job, tmp_path: Path) -> None:
    taken = [*command[:-1], str(job.folder)]
    assert "holds a run already" in refused(*taken)
    assert "no checkpoint to resume" in refused(*command, "--resume")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").touch()
    base, full = job.metrics["base"], str(tmp_path / "full")
    assert "exists already" in refused("merge", base, str(job.folder), full)
    assert "nowhere" in refused("eval", str(tmp_path / "nowhere"))
    assert "nowhere" in refused("inspect", str(tmp_path / "nowhere"))
    assert "There is no recipe" in refused("inspect", "nowhere.yaml")


def test_adapters(refused: Refused, job: Job, tmp_path: Path) -> None:
    other = str(save_base(tmp_path / "other", initializer_range=0.1))
    run, out = str(job.folder), str(tmp_path / "merged")
    assert "trained on other base weights" in refused("merge", other, run, out)
    assert "trained on other base weights" in refused("eval", run, "--base", other)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((job.folder / "adapter.safetensors").read_bytes()[:-10])
    for arguments in (["inspect", str(cut)], ["eval", str(cut)], ["merge", other, str(cut), out]):
        assert "truncated" in refused(*arguments, hint=False)
    assert "no recipe; KEY=VALUE" in refused("inspect", run, "adapter.rank=1")
    assert not Path(out).exists()


def test_divergence_is_a_failure(say: Say, command: list[str]) -> None:
    said = say(*command, "training.learning_rate=1e30", "training.eval_steps=1")
    assert said.code == 1
    error, hint = said.err.splitlines()[-2:]
    assert error.startswith("Error: ") and "not finite" in error
    assert hint.startswith("Hint: ") and "training.learning_rate" in hint
    assert "Traceback" not in said.err


def test_a_failed_proof_is_a_failure(
    refused: Refused, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "TOLERANCE", -1.0)
    said = refused("merge", job.metrics["base"], str(job.folder), str(tmp_path / "out"), code=1)
    assert "Nothing was written" in said
    assert list(tmp_path.iterdir()) == []


def test_the_unforeseen_is_a_failure(
    refused: Refused, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall_over(*arguments: object, **settings: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("dcft_cli.runs.inspect_adapter.inspect", fall_over)
    assert "ZeroDivisionError: by zero" in refused("inspect", str(job.folder), code=1)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    quiet = shell("inspect", "nowhere", cwd=tmp_path)
    assert (quiet.code, "Traceback" in quiet.err) == (2, False)
    loud = shell("inspect", "nowhere", "--debug", cwd=tmp_path)
    assert loud.code != 0
    assert "Traceback" in loud.err and "RunError: There is no nowhere" in loud.err


def test_usage(say: Say) -> None:
    for arguments in (["fly"], ["train"], ["merge", "base"], ["train", "a", "--no-such-option"]):
        said = say(*arguments)
        assert (said.code, said.out) == (2, "")
        assert "Usage: " in said.err


def test_json_stays_alone_on_stdout(say: Say, job: Job, tmp_path: Path) -> None:
    copy = shutil.copytree(job.folder, tmp_path / "copy")
    for arguments in (
        ["eval", str(copy)],
        ["inspect", str(copy)],
        ["inspect", f"{copy}/recipe.yaml"],
    ):
        said = say(*arguments, "--json")
        assert said.code == 0
        assert json.loads(said.out)
