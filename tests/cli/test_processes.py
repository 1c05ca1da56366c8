"""Several processes train, score and save what one does, by whatever they are started."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.distributed.fsdp import fully_shard

from tests.cli.conftest import RunCli
from tests.families import save_base
from tests.jobs import largest_difference
from tests.samples import rows_of, write_rows

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="several processes are tested with gloo on Linux"
)

ROWS = 45  # the last batch of an epoch has 9 of 12 rows: one of 2 processes has none of them
TASKS = {
    "sst2": "task: {name: sst2}",
    "tokens": "task: {type: token_classification}",
    "topics": "task: {type: multi_label}",
    "squad_v1": "task: {name: squad_v1}",
}
COLUMNS = {"tokens": ", text: tokens, label: ner_tags", "topics": ", text: text, label: labels"}
RECIPE = """
model: {{name: {base}, classifier_dropout: 0.0}}
{task}
data: {{train: {train}, validation: {dev}{columns}}}
training: {{device: cpu, max_steps: 6, eval_steps: 3, logging_steps: 1, warmup_steps: 0,
            learning_rate: 0.01, batch_size: 12}}
"""
SHARED = ["training.batch_size=3", "training.gradient_accumulation_steps=2"]  # by 2: 12 rows
PLAIN = ["training.acceleration=off", "adapter.init=zero"]
RUNS: dict[str, tuple[str, list[str]]] = {
    "dcft": ("sst2", []),
    "labels": ("topics", []),
    "dcft-tokens": ("tokens", []),
    "questions": ("squad_v1", ["data.document_stride=10"]),
    "lora": ("tokens", ["adapter.method=lora", *PLAIN[:1]]),
    "adalora": ("tokens", ["adapter.method=adalora"]),
    "houlsby": ("tokens", ["adapter.method=houlsby"]),
    "bitfit": ("tokens", ["adapter.method=bitfit"]),
    "plain": ("tokens", PLAIN),
}
# The base is split among the processes: compared with the same run in which it is not.
SHARDED = {"lora-sharded": "lora", "plain-sharded": "plain"}
CAN_SPLIT = "ignored_params" in signature(fully_shard).parameters  # torch 2.6 cannot
# Every process has the same values after every step: those that share no gradients drift apart.
SCRIPT = """
import json
import sys
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
for line in json.loads(sys.argv[1]):
    try:
        main(line)
    except SystemExit as done:
        if done.code:
            raise
"""
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
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]


def started(command: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(command: Sequence[str], folder: Path, code: int = 0) -> str:
    """Run a command to its end; return what it wrote to stderr."""
    process = started(command, folder)
    _, errors = process.communicate()
    assert process.returncode == code, errors
    return errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base without dropout, which would differ between processes; and recipes."""
    folder = tmp_path_factory.mktemp("processes")
    calm = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    base = save_base(folder / "base", **calm)
    for name, task in TASKS.items():
        kind = {"tokens": "token_classification", "topics": "multi_label"}.get(name, name)
        files = {
            part: write_rows(folder / f"{name}-{part}.jsonl", rows_of(kind, count, seed=count))
            for part, count in (("train", ROWS), ("dev", 13))
        }
        columns = COLUMNS.get(name, "")
        text = RECIPE.format(base=base, task=task, columns=columns, **files)
        (folder / f"{name}.yaml").write_text(text)
    (folder / "script.py").write_text(SCRIPT)
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> Path:
    """The folder with all runs in two processes (two/NAME)."""
    lines = [_line(name, "two", SHARED) for name in RUNS]
    lines += [
        _line(whole, "two", [*SHARED, "training.shard_base=true"], name)
        for name, whole in SHARDED.items()
        if CAN_SPLIT
    ]
    lines.append(["eval", "two/dcft", "--predictions", "two.jsonl"])
    run([*TORCHRUN, "--nproc-per-node=2", "script.py", json.dumps(lines)], folder)
    return folder


def _line(run_name: str, where: str, more: Sequence[str], output: str = "") -> list[str]:
    recipe, settings = RUNS[run_name]
    return [
        "train",
        f"{recipe}.yaml",
        *settings,
        *more,
        "--output",
        f"{where}/{output or run_name}",
    ]


def metrics(run_folder: Path) -> dict[str, Any]:
    return json.loads((run_folder / "metrics.json").read_text())  # type: ignore[no-any-return]


def assert_equal_runs(found: Path, expected: Path) -> None:
    """Losses within 1e-4, the last adapter within 5e-3 (Adam amplifies rounding), same scores."""
    lines = [
        [json.loads(line) for line in (one / "log.jsonl").read_text().splitlines()]
        for one in (found, expected)
    ]
    for one, other in zip(*lines, strict=True):
        assert one["step"] == other["step"]
        assert one.get("loss", 0.0) == pytest.approx(other.get("loss", 0.0), abs=1e-4)
    last = Path("checkpoints/checkpoint-6/adapter.safetensors")
    first, second = load_file(found / last), load_file(expected / last)
    assert first.keys() == second.keys()
    # A softmax over positions does not depend on this bias: its gradient is nothing but rounding,
    # of which Adam makes steps of full length.
    compared = [name for name in first if not name.endswith("qa_outputs.bias")]
    assert max((first[name] - second[name]).abs().max().item() for name in compared) < 5e-3
    one, other = metrics(found), metrics(expected)
    for name in ("baselines", "metrics", "last_metrics"):
        assert _flat(one[name]) == pytest.approx(_flat(other[name]), abs=1e-4)


def _flat(scores: dict[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in scores.items():
        inner = _flat(value) if isinstance(value, dict) else {"": value}
        flat |= {f"{name} {key}": number for key, number in inner.items()}
    return flat


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_what_one_does(
    name: str, two: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two)
    assert run_cli(*_line(name, "one", [])).code == 0
    assert_equal_runs(two / "two" / name, two / "one" / name)


@pytest.mark.skipif(not CAN_SPLIT, reason="needs a torch whose fully_shard leaves weights out")
@pytest.mark.parametrize("name", SHARDED)
def test_a_split_base_gives_the_same_adapter(name: str, two: Path) -> None:
    whole, split = (two / "two" / one / "adapter.safetensors" for one in (SHARDED[name], name))
    assert split.read_bytes() == whole.read_bytes()
    assert metrics(split.parent)["acceleration"] == []


def test_two_processes_score_what_one_does(
    two: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two)
    assert run_cli("eval", "two/dcft", "--predictions", "one.jsonl").code == 0
    found, expected = (
        [json.loads(line) for line in (two / file).read_text().splitlines()]
        for file in ("two.jsonl", "one.jsonl")
    )
    assert len(found) == 13
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name] == other[name] for name in ("label", "prediction"))


def test_three_devices_by_option_and_two_by_accelerate(
    two: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two)
    assert run_cli(*_line("labels", "reference", [])).code == 0
    command = [sys.executable, "-m", "dcft_cli"]
    three = [*_line("labels", "three", ["training.batch_size=4"]), "--devices", "3"]
    run([*command, *three], two)
    assert_equal_runs(two / "three/labels", two / "reference/labels")
    accelerate = [*ACCELERATE, "--num_processes=2", "-m", "dcft_cli"]
    run([*accelerate, *_line("labels", "accelerate", ["training.batch_size=6"])], two)
    assert_equal_runs(two / "accelerate/labels", two / "reference/labels")


def test_two_processes_stop_together_and_go_on(two: Path) -> None:
    (two / "stop.py").write_text(STOP)
    line = _line("dcft", "stopped", SHARED)
    said = run([*TORCHRUN, "--nproc-per-node=2", "stop.py", *line], two, code=1)
    assert said.count("Stopped after step 2. checkpoint-2 is saved. Continue with:") == 1, said
    assert "exitcode  : 143" in said
    said = run([*TORCHRUN, "--nproc-per-node=2", "-m", "dcft_cli", *line], two)
    assert "Resuming after step 2 of 6." in said
    assert largest_difference(two / "stopped/dcft", two / "two/dcft") == 0


def test_a_dead_process_ends_the_run_which_can_be_resumed(folder: Path) -> None:
    line = _line("labels", "killed", ["training.max_steps=400", *SHARED])
    command = [sys.executable, "-m", "dcft_cli", *line, "--devices", "2"]
    process = started(command, folder)
    log = folder / "killed/labels/log.jsonl"
    while not (log.exists() and '"step": 6,' in log.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(pid) for pid in children]
    os.kill(workers[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.count("Error: ") == 1 and "was ended by SIGKILL" in errors, errors
    assert "continue with --resume" in errors and "Traceback" not in errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    # A mistake is told once, by the process that started the others.
    errors = run([*command, "training.seed=7"], folder, code=2)
    assert errors.count("Error: ") == errors.count("Hint: ") == 1, errors
    assert "contains a run already" in errors and "Traceback" not in errors
    step = next(int(n["step"]) for n in reversed(_lines(log)) if "scores" in n)
    run([*command, "--resume", f"training.max_steps={step + 3}"], folder)
    assert _lines(log)[-1]["step"] == step + 3


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "splits the base model among several processes, and there is one"),
        (["--devices", "0"], "devices"),
    ],
)
def test_mistakes(
    settings: list[str],
    message: str,
    folder: Path,
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    found = run_cli("train", "sst2.yaml", "training.shard_base=true", "--output", "x", *settings)
    assert found.code == 2 and message in found.err
