"""Two processes by torchrun: they start as one does, and train together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs import largest_difference
from tests.samples import rows_of, write_rows

RECIPE = """
model: {{name: {base}}}
task: {{name: sst2}}
data: {{train: {train}, validation: {dev}}}
training: {{device: cpu, max_steps: 3, batch_size: 4}}
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
# Every process has the same values after every step: those that share no gradients drift apart.
WATCH = """
import torch.distributed as dist
from dcft_cli.cli import main
from dcft_cli.training.callbacks import ReportingCallback

def compare(model):
    trained = [p.detach().tolist() for p in model.parameters() if p.requires_grad]
    everywhere = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, trained)
    assert all(one == everywhere[0] for one in everywhere), "processes differ"

def watched(method):
    def call(self, args, state, control, **others):
        compare(others["model"])
        return method(self, args, state, control, **others)
    return call

ReportingCallback.on_train_begin = watched(ReportingCallback.on_train_begin)
ReportingCallback.on_step_end = watched(ReportingCallback.on_step_end)
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="gloo on one machine")
def test_two_processes_stay_equal_and_start_like_one(base: Path, tmp_path: Path) -> None:
    files = {
        name: write_rows(tmp_path / f"{name}.jsonl", rows_of("sst2", count, seed=count))
        for name, count in (("train", 40), ("dev", 12))
    }
    (tmp_path / "my.yaml").write_text(RECIPE.format(base=base, **files))
    (tmp_path / "watch.py").write_text(WATCH)
    ways = {
        "two": [*TORCHRUN, "watch.py"],
        "one": [sys.executable, "-m", "dcft_cli"],
    }
    found = {}
    for name, way in ways.items():
        done = subprocess.run(
            [*way, "train", "my.yaml", "--output", name],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found[name] = json.loads((tmp_path / name / "metrics.json").read_text())
    assert found["two"]["baselines"] == found["one"]["baselines"]


# The second process is asked to stop in its second step, the first one is not.
STOP = """
import os, signal
from dcft_cli.cli import main
from dcft_cli.training.callbacks import MethodSteps

after = MethodSteps.on_optimizer_step

def on_optimizer_step(self, args, state, *others, **kwargs):
    after(self, args, state, *others, **kwargs)
    if os.environ["RANK"] == "1" and state.global_step == 1:
        os.kill(os.getpid(), signal.SIGTERM)

MethodSteps.on_optimizer_step = on_optimizer_step
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="gloo on one machine")
def test_two_processes_stop_together_and_go_on(base: Path, tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", rows_of("sst2", 40))
    dev = write_rows(tmp_path / "dev.jsonl", rows_of("sst2", 12, seed=1))
    (tmp_path / "my.yaml").write_text(RECIPE.format(base=base, train=train, dev=dev))
    (tmp_path / "stop.py").write_text(STOP)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}

    def run(output: str, *way: str) -> str:
        arguments = ["train", "my.yaml", "training.max_steps=5", "--output", output]
        command = [*TORCHRUN, *way, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        return done.stderr

    run("whole", "-m", "dcft_cli")
    said = run("stopped", "stop.py")
    assert said.count("Stopped after step 2. checkpoint-2 is saved. Continue with:") == 1, said
    assert "exitcode  : 143" in said
    assert "Resuming after step 2 of 5." in run("stopped", "-m", "dcft_cli")
    assert largest_difference(tmp_path / "stopped", tmp_path / "whole") == 0
