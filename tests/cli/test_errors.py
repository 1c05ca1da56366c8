"""Mistakes and failures as a user meets them: one message, a hint, the right exit code."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dcft_cli.errors import ModelError
from dcft_cli.merging import merge as merging
from tests.cli.conftest import RunCli, shell
from tests.families import SPECIAL, WORDS, save_base
from tests.jobs import Job, overrides, recipe, train
from tests.samples import Row, rows_of, write_rows

ErrorOf = Callable[..., str]


@pytest.fixture(scope="module")
def job(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    return train(recipe("rte", folder, base), folder / "run")


@pytest.fixture
def command(base: Path, tmp_path: Path) -> list[str]:
    """A training command that is right in every word."""
    settings = overrides("rte", tmp_path, base)
    return ["train", "recipes/rte.yaml", *settings, "--output", str(tmp_path / "run")]


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
        ("model.name=./nowhere", ["no base model ./nowhere: no folder /", "model.name=DIR"]),
        ("model.name=~/nowhere", [f"no folder {Path.home() / 'nowhere'}", "model.name=DIR"]),
        ("model.name=$HOME/nowhere", [f"no folder {Path.home() / 'nowhere'}", "model.name=DIR"]),
        ("model.name=a/b/nowhere", ["no folder", "model.name=DIR"]),
        ("model.name=someone/not-here", ["no folder", "sought on the Hub", "model.name=DIR"]),
        ("task.metric=f3", ["no score named f3", "accuracy"]),
        ("task.name=squad_v1", ["column"]),
        ("training.precision=float16", ["precision=float16 needs a CUDA device"]),
        ("training.device=cuda", ["finds no such device", "training.device=auto"]),
        ("training.report_to=[a_tracker]", ["a_tracker", "not installed"]),
    ],
)
def test_mistakes_in_a_training_command(
    error_of: ErrorOf,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mistake: str,
    messages: list[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    output = error_of(*command, mistake)
    assert all(message in output for message in messages), output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"label": 7}, ["unknown label", "row 2 (line 2)", "entailment (0)"]),
        ({"sentence1": 5}, ["`sentence1` is 5, not a text"]),
        ({"sentence1": " "}, ["`sentence1` is empty"]),
    ],
)
def test_mistakes_in_data(
    error_of: ErrorOf, command: list[str], tmp_path: Path, change: Row, messages: list[str]
) -> None:
    rows = rows_of("rte", 4)
    rows[1] |= change
    output = error_of(*command, f"data.train={write_rows(tmp_path / 'bad.jsonl', rows)}")
    assert all(message in output for message in ["bad.jsonl", *messages]), output


def test_all_mistakes_in_a_file_are_reported_together(
    error_of: ErrorOf, command: list[str], tmp_path: Path
) -> None:
    rows = rows_of("rte", 5)
    rows[1]["label"], rows[2]["sentence1"], rows[3]["label"] = 7, "", None
    path = write_rows(tmp_path / "bad.jsonl", rows)
    with (tmp_path / "bad.jsonl").open("a") as file:
        file.write('{"sentence1": \n')
    assert error_of(*command, f"data.train={path}").splitlines() == [
        f"Error: {path}: malformed JSON in 1 row:",
        "  row 6 (line 6): at character 14 (Expecting value)",
        f"{path}: no usable text in 1 row:",
        "  row 3 (line 3): `sentence1` is empty",
        f"{path}: missing label in 1 row:",
        "  row 4 (line 4): `label` is None",
        f"{path}: unknown label in 1 row:",
        "  row 2 (line 2): `label` is 7",
        "Hint: Each line is one JSON object: the row, by column name."
        " Or the whole file is one array of such objects.",
        "Fix or remove these rows.",
        "Known labels: entailment (0), not_entailment (1).",
    ]


def test_all_mistakes_are_reported_together(error_of: ErrorOf, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("model: {nome: x}\ntask: {name: rta}\ntraining:\n  epochs: many\n")
    output = error_of("train", str(file), "adapter.rank=0")
    for part in (":1: model.nome", ":2: task.name", ":4: training.epochs", "adapter.rank=0"):
        assert part in output
    assert "recipes/rte.yaml" in error_of("train", "recipes/rta.yaml")


def test_a_failed_verification_is_a_failure(
    error_of: ErrorOf, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "TOLERANCE", -1.0)
    output = error_of("merge", job.metrics["base"], str(job.folder), str(tmp_path / "out"), code=1)
    assert "Nothing was written" in output
    assert list(tmp_path.iterdir()) == []


def test_an_unexpected_error_is_a_failure(
    error_of: ErrorOf, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall_over(*arguments: object, **settings: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("dcft_cli.runs.inspect_adapter.inspect", fall_over)
    assert "ZeroDivisionError: by zero" in error_of("inspect", str(job.folder), code=1)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    quiet = shell("inspect", "nowhere", cwd=tmp_path)
    assert (quiet.code, "Traceback" in quiet.err) == (2, False)
    loud = shell("inspect", "nowhere", "--debug", cwd=tmp_path)
    assert loud.code != 0
    assert "Traceback" in loud.err and "RunError: nowhere does not exist" in loud.err


LONG = "n" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", LONG],
        ["inspect", f"{LONG}.safetensors"],
        ["merge", LONG, "out"],
        ["train", f"{LONG}.yaml"],
        ["train", "recipes/rte.yaml", f"model.name={LONG}"],
    ],
)
def test_a_name_that_is_too_long(error_of: ErrorOf, arguments: list[str]) -> None:
    assert f"File name too long: {LONG}" in error_of(*arguments)


def test_an_output_with_a_name_that_is_too_long(
    error_of: ErrorOf, command: list[str], job: Job, tmp_path: Path
) -> None:
    out = str(tmp_path / LONG)
    assert f"File name too long: {out}" in error_of(*command[:-1], out)
    assert f"File name too long: {out}" in error_of("merge", str(job.folder), out)


@pytest.mark.parametrize(
    ("method", "name", "arguments"),
    [
        ("exists", "run", "train {command}"),
        ("mkdir", "out", "merge {run} {tmp}/locked/out"),
        ("is_dir", "run", "eval {run}"),
    ],
)
def test_files_and_folders_without_permission(
    error_of: ErrorOf,
    command: list[str],
    job: Job,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    name: str,
    arguments: str,
) -> None:
    real = getattr(Path, method)

    def refuse(path: Path, *args: object, **settings: object) -> object:
        if name in path.name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **settings)

    places = {"run": job.folder, "tmp": tmp_path, "command": "COMMAND"}
    words = arguments.format(**places).split()
    words = command if words[-1] == "COMMAND" else words
    monkeypatch.setattr(Path, method, refuse)  # the tests may run as root, who may do anything
    output = error_of(*words)
    assert "Permission denied: " in output and name in output
    assert not (tmp_path / "locked" / "out").exists()


@pytest.mark.parametrize("use", ["train", "validation"])
def test_a_token_without_an_embedding(
    error_of: ErrorOf, run_cli: RunCli, command: list[str], tmp_path: Path, use: str
) -> None:
    base = save_base(tmp_path / "trimmed", vocab_size=len(SPECIAL) + len(WORDS))
    command.append(f"model.name={base}")
    rows = rows_of("rte", 12)
    rows[7]["sentence1"] += " ~"
    other = write_rows(tmp_path / "other.jsonl", rows)
    for more in (["--dry-run"], []):
        output = error_of(*command, *more, f"data.{use}={other}")
        assert "'~'" in output and "is in the data" in output
    if use == "validation":
        assert run_cli("train", *command[1:]).code == 0
        assert "'~'" in error_of("eval", str(tmp_path / "run"), f"data.validation={other}")


def test_a_base_with_weights_that_are_not_finite(base: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(base, tmp_path / "damaged"))
    tensors = load_file(damaged / "model.safetensors")
    tensors["encoder.layer.0.output.dense.bias"][1] = torch.nan
    save_file(tensors, damaged / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"damaged contain NaN or infinity; .*output\.dense\.bias"):
        train(recipe("rte", tmp_path, damaged), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_adapter_is_no_base_model(
    error_of: ErrorOf, command: list[str], job: Job, base: Path, tmp_path: Path
) -> None:
    peft = shutil.copytree(base, tmp_path / "peft")
    (peft / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    for dry in ([], ["--dry-run"]):
        output = error_of(*command, *dry, f"model.name={peft}")
        assert f"{peft} is a PEFT adapter (adapter_config.json), not a base model." in output
    output = error_of(*command, f"model.name={job.folder}")
    assert "is a DCFT adapter (adapter.safetensors), not a base model." in output


def test_with_json_errors_are_json_too(run_cli: RunCli, tmp_path: Path) -> None:
    for command in ("eval", "inspect"):
        output = run_cli(command, str(tmp_path / "nowhere"), "--json")
        error = json.loads(output.out)
        assert output.code == 2
        assert output.err == f"Error: {error['error']}\nHint: {error['hint']}\n"
        assert "nowhere" in error["error"]


def test_with_json_stdout_is_only_json(run_cli: RunCli, job: Job, tmp_path: Path) -> None:
    copy = shutil.copytree(job.folder, tmp_path / "copy")
    for arguments in (["eval", copy], ["inspect", copy], ["inspect", copy / "recipe.yaml"]):
        output = run_cli(*map(str, arguments), "--json")
        assert output.code == 0
        assert json.loads(output.out)
