"""Signals in the middle of training, and going on from there."""

import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dcft_cli.recipe import load_recipe
from dcft_cli.runs.folder import RunFolder
from tests.cli.conftest import shell
from tests.jobs import largest_difference, overrides, train

# What starts the tests in the background (a shell, nohup) may have them ignore signals.
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from dcft_cli.cli import main
main()
"""
PATIENCE = 120  # seconds until the next step must be taken


def settings(base: Path, tmp_path: Path, *more: str) -> list[str]:
    """A run that goes on for hours, and saves nothing by itself."""
    steps = ("training.max_steps=1000000", "training.eval_steps=1000000")
    return ["recipes/sst2.yaml", *overrides("sst2", tmp_path, base), *steps, *more]


@contextmanager
def training(arguments: list[str], run: RunFolder, **streams: object) -> Iterator[subprocess.Popen]:
    """Start `dcft train`, and wait for its tenth step."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", START, "train", *arguments],
        cwd=run.path.parent,
        env=os.environ,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )
    try:
        end = time.monotonic() + PATIENCE
        while not run.log.exists() or run.log.read_text().count("\n") < 10:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(
    name: str, code: int, base: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "my run")
    arguments = [*settings(base, tmp_path), "--output", "my run"]
    with training(arguments, run) as process:
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (code, ""), err
    assert "Traceback" not in err
    checkpoint = run.last_checkpoint()
    assert checkpoint is not None and not run.adapter.exists()
    step = int(checkpoint.name.partition("-")[2])
    *_, said, command = err.splitlines()
    assert said == f"Stopped after step {step}. checkpoint-{step} is saved. Continue with:"
    assert shlex.split(command) == ["dcft", "train", *arguments, "--resume"]


def test_a_run_stopped_by_a_signal_equals_an_uninterrupted_one(base: Path, tmp_path: Path) -> None:
    length = ("training.max_steps=40", "training.eval_steps=100", "training.logging_steps=7")
    arguments = settings(base, tmp_path, *length)
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    train(load_recipe(arguments[0], arguments[1:]), whole.path)
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW)
    stopped = subprocess.run(
        [sys.executable, str(slow), "train", *arguments, "--output", "run"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert stopped.returncode == 143, stopped.stderr
    assert "checkpoint-12 is saved" in stopped.stderr
    again = shell("train", *arguments, "--output", "run", cwd=tmp_path)  # the same command
    assert again.code == 0, again.err
    assert "has a run with the same recipe and rows" in again.err
    assert largest_difference(run.path, whole.path) == 0
    lines = [
        [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in r.log_lines()]
        for r in (run, whole)
    ]
    assert lines[0] == lines[1]


# Sends itself SIGTERM in the middle of the twelfth step.
SLOW = """
import os, signal
from dcft_cli.cli import main
from dcft_cli.training.callbacks import MethodSteps

after = MethodSteps.on_optimizer_step

def on_optimizer_step(self, args, state, *others, **kwargs):
    after(self, args, state, *others, **kwargs)
    if state.global_step == 11:
        os.kill(os.getpid(), signal.SIGTERM)

MethodSteps.on_optimizer_step = on_optimizer_step
main()
"""


def test_a_closed_terminal_saves_a_checkpoint(base: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    ours, theirs = pty.openpty()
    arguments = [*settings(base, tmp_path), "--output", "run"]
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True,
                "preexec_fn": lambda: os.close(os.open(os.ttyname(0), os.O_RDWR))}  # fmt: skip
    drain = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL)
    os.close(ours)
    with training(arguments, run, **terminal) as process:
        os.close(theirs)
        drain.kill()  # closes the terminal
        drain.wait()
        assert process.wait(timeout=PATIENCE) == 129
    assert run.last_checkpoint() is not None


def test_a_signal_while_data_is_read(base: Path, tmp_path: Path) -> None:
    reading = tmp_path / "reading.py"
    reading.write_text(READING)
    stopped = subprocess.run(
        [sys.executable, str(reading), "train", *settings(base, tmp_path), "--output", "run"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert stopped.returncode == 143, stopped.stderr
    assert stopped.stderr.endswith("\nStopped. The same command goes on from here.\n")
    assert not (tmp_path / "run").exists()


READING = """
import os, signal
from dcft_cli.runs import plan
from dcft_cli.cli import main

plan.prepare = lambda recipe: os.kill(os.getpid(), signal.SIGTERM)
main()
"""


def test_ctrl_c_before_the_first_step_ends_at_once(base: Path, tmp_path: Path) -> None:
    early = tmp_path / "early.py"
    early.write_text(EARLY)
    stopped = subprocess.run(
        [sys.executable, str(early), "train", *settings(base, tmp_path), "--output", "run"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert stopped.returncode == 130, stopped.stderr
    assert "Stopped. No checkpoint is saved yet. Start again with:\n  dcft train" in stopped.stderr
    assert "--resume" not in stopped.stderr


# Ctrl-C while the base model is loaded.
EARLY = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from dcft_cli.runs import attach
from dcft_cli.cli import main

check = attach.check_finite

def check_finite(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    check(*arguments)

attach.check_finite = check_finite
main()
"""


@pytest.mark.parametrize(
    ("module", "code", "said"),
    [
        ("dcft_cli.cli", -signal.SIGINT, ""),
        ("typer", -signal.SIGINT, ""),
        ("dcft_cli.runs.inspect_adapter", 130, "\nStopped.\n"),  # within the command
    ],
)
def test_ctrl_c_while_a_command_starts(module: str, code: int, said: str) -> None:
    stopped = subprocess.run(
        [sys.executable, "-c", STARTING, module, "inspect", "nowhere"],
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (code, "", said)


# Ctrl-C when a module is imported.
STARTING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
awaited = sys.argv.pop(1)

class Interrupt:
    @staticmethod
    def find_spec(name, *others):
        if name == awaited:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt)
from dcft_cli.__main__ import main
main()
"""
