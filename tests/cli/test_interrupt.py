"""Ctrl-C in the middle of training, and going on from there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dcft_cli.runs.folder import RunFolder
from tests.cli.conftest import shell
from tests.jobs import overrides

# A shell that starts this in the background may have result it to ignore Ctrl-C.
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from dcft_cli.cli import main
main()
"""
PATIENCE = 120  # seconds until a checkpoint must be there


def test_ctrl_c_keeps_checkpoints(base: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "sst2")
    settings = overrides("sst2", tmp_path, base)
    command = ["train", "recipes/sst2.yaml", *settings, "training.max_steps=1000000"]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", START, *command],
        cwd=tmp_path,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + PATIENCE
        while run.last_checkpoint() is None and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err.endswith("\nStopped. Checkpoints are kept: continue with --resume.\n")
    assert "Traceback" not in err
    assert out == ""
    assert not run.adapter.exists()
    checkpoint = run.last_checkpoint()
    assert checkpoint is not None
    step = int(checkpoint.name.partition("-")[2])

    assert "--resume" in shell(*command, cwd=tmp_path).err  # and nothing is overwritten
    command[-1] = f"training.max_steps={step + 3}"
    output = shell(*command, "--resume", cwd=tmp_path)
    assert output.code == 0, output.err
    metrics = json.loads(run.metrics.read_text())
    assert metrics["last_step"] == step + 3
    assert run.adapter.exists()
    logged = [json.loads(line) for line in run.log.read_text().splitlines()]
    losses = [line["step"] for line in logged if "loss" in line]
    assert losses == list(range(1, step + 4))
