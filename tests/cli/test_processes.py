"""Two processes by torchrun start as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import rows_of, write_rows

RECIPE = """
model: {{name: {base}}}
task: {{name: sst2}}
data: {{train: {train}, validation: {dev}}}
training: {{device: cpu, max_steps: 2, batch_size: 4}}
"""
# Prints what every process starts with, once it is shared out for training.
WATCH = """
import sys
import torch.distributed as dist
from dcft_cli.adapter.inject import adapter_layers
from dcft_cli.cli import main
from dcft_cli.runs import training

start_adapters = training.start_adapters

def watched(base, *others):
    note = start_adapters(base, *others)
    factors = [p.detach() for a in adapter_layers(base.model).values() for p in a.parameters()]
    factors.append(base.model.classifier.weight.detach())
    everywhere = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, [p.tolist() for p in factors])
    assert all(one == everywhere[0] for one in everywhere), "processes start differently"
    return note

training.start_adapters = watched
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="gloo on one machine")
def test_two_processes_start_alike_and_as_one(base: Path, tmp_path: Path) -> None:
    files = {
        name: write_rows(tmp_path / f"{name}.jsonl", rows_of("sst2", count, seed=count))
        for name, count in (("train", 40), ("dev", 12))
    }
    (tmp_path / "my.yaml").write_text(RECIPE.format(base=base, **files))
    (tmp_path / "watch.py").write_text(WATCH)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ways = {
        "two": [*torchrun, "watch.py"],
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
