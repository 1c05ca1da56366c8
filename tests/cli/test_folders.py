"""Folders and disks that fail a command, and runs that share a folder."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from dcft_cli.runs.folder import RunFolder
from tests.cli.conftest import RunCli
from tests.jobs import overrides, recipe, train

PATIENCE = 120  # seconds until a checkpoint must be there


@pytest.fixture
def command(base: Path, tmp_path: Path) -> list[str]:
    """A training command; its run folder is `run`."""
    settings = overrides("rte", tmp_path, base)
    return ["train", "recipes/rte.yaml", *settings, "--output", str(tmp_path / "run")]


def test_runs_do_not_share_a_folder(command: list[str], tmp_path: Path, run_cli: RunCli) -> None:
    run = RunFolder(tmp_path / "run")
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "dcft_cli", *command, "training.max_steps=1000000"],
        env=os.environ,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + PATIENCE
        while run.last_checkpoint() is None and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        for more in ([], ["--overwrite"], ["--resume"]):
            output = run_cli(*command, *more)
            assert output.code == 2
            assert f"{run.path} is in use by process {process.pid} on " in output.err
        output = run_cli("inspect", str(run.path / "recipe.yaml"), "--json")
        assert output.code == 0, output.err
        assert json.loads(run.log.read_text().splitlines()[0])
        assert process.poll() is None, "the run goes on"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    output = run_cli(*command, "--overwrite")
    assert output.code == 0, output.err
    assert not (run.path / ".lock").exists()


def limited(arguments: list[str], size: int) -> subprocess.CompletedProcess[str]:
    """Run a command that can write files of at most `size` bytes, as on a disk that is full."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    start = f"{limit}; from dcft_cli.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", start, *arguments], capture_output=True, text=True
    )


def test_a_disk_that_is_full(command: list[str], tmp_path: Path, run_cli: RunCli) -> None:
    run = RunFolder(tmp_path / "run")
    # Log and checkpoints grow with the steps: the first ones fit, the last ones do not.
    command += ["training.max_steps=300", "training.eval_steps=50"]
    done = limited(command, 40_000)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    error = done.stderr[done.stderr.index("Error: ") :]
    assert error.startswith(("Error: File too large: ", "Error: No space left"))
    assert str(run.path) in error
    assert "Hint: " in error and "--resume" in error
    assert not run.adapter.exists()
    assert run.last_checkpoint() is not None
    output = run_cli(*command, "--resume")
    assert output.code == 0, output.err
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 301))


def test_a_merge_without_room(base: Path, tmp_path: Path) -> None:
    job = train(recipe("rte", tmp_path, base), tmp_path / "run")
    done = limited(["merge", str(job.folder), str(tmp_path / "new" / "out")], 9000)
    assert done.returncode == 1, done.stderr
    assert f"Error: File too large: {tmp_path / 'new' / 'out'}." in done.stderr
    assert "Hint: Raise the limit of the file size" in done.stderr
    assert not (tmp_path / "new").exists()


def test_out_of_memory(
    command: list[str], tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    @functools.wraps(BertForSequenceClassification.forward)
    def refuse(*args: Any, **inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    assert run_cli(*command).code == 0
    monkeypatch.setattr(BertForSequenceClassification, "forward", refuse)
    for words, setting in (
        ([*command, "--overwrite"], "training.auto_batch_size=true"),
        (["eval", str(tmp_path / "run")], "training.eval_batch_size"),
    ):
        output = run_cli(*words)
        assert output.code == 1
        assert output.err.count("Error: Out of memory: CUDA out of memory.") == 1
        assert setting in output.err.partition("Hint: ")[2]
