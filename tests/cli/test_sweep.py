"""`dcft sweep` as a user types it: alone, killed, in several processes at once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dcft_cli.sweeping.folders import RECORD
from tests.cli.conftest import RunCli, shell
from tests.families import published, tiny_tokenizer
from tests.sweeping.sweeps import write_recipe

GRID = ("--grid", "training.learning_rate=1e-3,1e-2")
PATIENCE = 300  # seconds in which a few tiny runs must be done


@pytest.fixture
def home(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_recipe(tmp_path, base)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "dcft_cli", "sweep", "tiny.yaml", *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def records(output: Path) -> dict[str, list[dict[str, Any]]]:
    """The events of each run, by its folder."""
    return {
        file.parent.name: [json.loads(line) for line in file.read_text().splitlines()[1:]]
        for file in sorted(output.glob(f"*/{RECORD}"))
    }


def wait_for_starts(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while sum(map(len, records(output).values())) < 2 * count - 1:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_killed_and_started_twice_each_run_is_done_once(
    home: Path, run_cli: RunCli, kind: str
) -> None:
    output = home / "out"
    command = [*GRID, "--seeds", "2", "--output", "out"]
    if kind == "sqlite":
        command += ["--storage", f"sqlite:///{home}/sweep.db"]
    killed = start(*command, cwd=home)
    wait_for_starts(output, 2, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = records(output)
    finished = {name for name, events in before.items() if events[-1]["event"] == "done"}
    assert len(before) == 2 and finished

    processes = [start(*command, cwd=home) for _ in range(2)]
    results = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    found = records(output)
    assert len(found) == 4
    for name, events in found.items():
        starts = 2 if name in before and name not in finished else 1
        assert [event["event"] for event in events] == ["started"] * starts + ["done"], name
        if name in finished:
            assert {event["pid"] for event in events} == {killed.pid}
    (first, _), (second, _) = results
    assert first == second, "both know the whole result"
    assert first.splitlines()[0].split() == ["setting", "accuracy", "std", "n", "time"]
    assert len(re.findall(r" 2  \d+:\d\d:\d\d", first)) == 2, "two settings with two seeds each"
    assert run_cli("sweep", "tiny.yaml", *command).code == 0
    assert records(output) == found, "nothing is left to do"


def test_a_failed_run_and_json(home: Path, run_cli: RunCli) -> None:
    command = ("sweep", "tiny.yaml", "--grid", "training.learning_rate=1e9,1e-2")
    done = shell(*command, "--json", cwd=home)
    assert done.code == 1, done.err
    assert "   started  lr1e9  (0 of 2 done)" in done.err
    assert "    1 of 2  lr1e9  failed: Training diverged" in done.err
    assert "    2 of 2  lr0.01  accuracy 0." in done.err
    result = json.loads(done.out)
    assert result["counts"] == {"done": 1, "failed": 1}
    failed, good = result["runs"]
    assert failed["message"].startswith("Training diverged") and failed["score"] is None
    assert good["settings"] == {"training.learning_rate": 0.01}
    assert (home / "runs" / "tiny-sweep" / "lr0.01" / "metrics.json").is_file()
    assert result["best"]["command"] == "dcft train tiny.yaml training.learning_rate=0.01"
    again = run_cli(*command)
    assert again.code == 1, "a failure is never hidden"
    assert "lr1e9 failed: Training diverged" in again.out
    assert "--retry-failed" in again.out
    lines = again.out.splitlines()
    assert lines[0].split() == ["setting", "accuracy", "std", "n", "time", "runs"]
    assert lines[1].split()[0] == "lr0.01"
    assert max(map(len, lines)) <= 100
    # What it trained is a run like any other.
    run = "runs/tiny-sweep/lr0.01"
    assert run_cli("eval", run).code == 0


def test_ctrl_c_and_on(home: Path, run_cli: RunCli) -> None:
    command = ["training.max_steps=100000", "training.eval_steps=2", "--output", "out"]
    process = start(*command, cwd=home)
    wait_for_starts(home / "out", 1, process)
    end = time.monotonic() + PATIENCE
    while not list(home.glob("out/*/checkpoints/*/trainer_state.json")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # as a scheduler does; like Ctrl-C
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert err.endswith("\nStopped. The same command goes on from here.\n")
    assert [event["event"] for event in records(home / "out")["tiny"]] == ["started", "interrupted"]
    listed = run_cli("sweep", "tiny.yaml", *command, "--dry-run")
    assert "1 run: 1 interrupted" in listed.out


def test_jobs(home: Path) -> None:
    command = ("sweep", "tiny.yaml", "--seeds", "3", "--jobs", "2", "--output", "out")
    done = shell(*command, "--json", cwd=home)
    assert done.code == 0, done.err
    found = records(home / "out")
    assert sorted(found) == ["tiny-seed1", "tiny-seed2", "tiny-seed3"]
    assert all([e["event"] for e in events] == ["started", "done"] for events in found.values())
    # The first process may have done all before the second is ready.
    assert len({event["pid"] for events in found.values() for event in events}) in (1, 2)
    assert json.loads(done.out)["counts"] == {"done": 3}, "one document, not one of each process"
    # Which process counts how many at its end depends on when it looks.
    assert all(f" of 3  tiny-seed{seed}  accuracy" in done.err for seed in (1, 2, 3))


@pytest.mark.usefixtures("home")
def test_a_search(run_cli: RunCli) -> None:
    command = ("sweep", "tiny.yaml", "--tune", "training.learning_rate=1e-4..1e-1")
    done = run_cli(*command, "--trials", "2")
    assert done.code == 0, done.err
    header, *rows = done.out.splitlines()
    assert header.split() == ["trial", "learning_rate", "accuracy", "step", "time"]
    assert {row.split()[0] for row in rows[:2]} == {"tiny-trial1", "tiny-trial2"}
    assert "\n  dcft train tiny.yaml training.learning_rate=0." in done.out


def test_a_dry_run_needs_configurations_only(
    tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    published("deberta-v3-base").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    before = sorted(tmp_path.rglob("*"))
    files = ("data.train=missing.jsonl", "data.validation=missing.jsonl")
    command = ("sweep", "recipes/rte.yaml", "model.name=base", "--dry-run")
    grid = ("--grid", "adapter.kernel_size=2,8", "--seeds", "2")
    for data in ((), files):
        done = run_cli(*command, *data, *grid)
        assert (done.code, done.err) == (0, ""), done.err
        lines = [line.split() for line in done.out.splitlines()]
        assert lines[0] == ["run", "kernel_size", "seed", "adapter", "state"]
        assert lines[1] == ["kernel2-seed6", "2", "6", "83,232", "to", "do"]
        assert lines[3] == ["kernel8-seed6", "8", "6", "25,344", "to", "do"]
        assert lines[6][:4] == ["4", "runs:", "4", "to"]
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"


def test_a_dry_run_without_a_configuration(run_cli: RunCli) -> None:
    done = run_cli("sweep", "recipes/rte.yaml", "--seeds", "2", "--dry-run")
    assert done.code == 0
    assert "microsoft/deberta-v3-base is not at hand" in done.err
    assert "2 runs: 2 to do" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--grid", "adapter.rank"], "is not KEY=VALUES"),
        (["--grid", "adapter.rank=1,0"], "rank0: override"),
        (["--grid", "adapter.targets=[Q],[attn]"], "targets-attn: "),
        (["--tune", "adapter.scale=4"], "must be LOW..HIGH"),
        (["--tune", "adapter.scale=1..4.0"], "--trials 20"),
        (["data.train=missing.jsonl"], "do not exist: missing.jsonl"),
        (["--storage", "not a database"], "not the address of a database"),
        (["--storage", "sqlite:////no/such/folder/sweep.db"], "cannot be opened"),
        (["--seed", "3"], "Did you mean --seeds?"),
    ],
)
def test_mistakes(home: Path, error_of: Any, arguments: list[str], words: str) -> None:
    assert words in error_of("sweep", "tiny.yaml", *arguments)
    assert not list(home.glob(f"**/{RECORD}")), "nothing was started"


@pytest.mark.usefixtures("home")
def test_not_under_torchrun(error_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--jobs" in error_of("sweep", "tiny.yaml", "--seeds", "2")


@pytest.mark.usefixtures("home")
def test_without_optuna(error_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert 'pip install "dcft-cli[sweep]"' in error_of("sweep", "tiny.yaml", "--seeds", "2")
