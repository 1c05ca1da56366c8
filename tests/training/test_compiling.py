"""Training with torch.compile: the same losses, the same files."""

import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.utils import counters

from dcft_cli.errors import TrainingError, UserError
from dcft_cli.runs import train as training
from dcft_cli.runs.evaluate import evaluate
from dcft_cli.runs.plan import plan_training
from dcft_cli.training.compiling import check_compiler, compile_errors_told, compile_model
from dcft_cli.training.trainer import AdapterTrainer
from tests.families import save_base
from tests.jobs import Job, Watcher, largest_difference, recipe, tensors, train

# torch's own, while it traces.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings(r"ignore:The \.grad attribute:UserWarning"),
]

CALM = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
STEPS = ("training.max_steps=4", "training.eval_steps=2", "training.batch_size=5")


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but machine code: that would take minutes."""
    monkeypatch.setattr(training, "compile_model", partial(compile_model, backend="eager"))
    logging.getLogger("torch.__trace").setLevel(logging.ERROR)  # pytest would keep all of it
    torch._dynamo.reset()
    counters.clear()


def job(folder: Path, base: Path, compile: str, *more: str, **settings: bool) -> Job:
    loaded = recipe("mrpc", folder, base, *STEPS, f"training.compile={compile}", *more)
    return train(loaded, folder / f"run-{compile}", **settings)


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_compiled_training_is_the_same(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AdapterTrainer, "runs_ahead", True)
    base = save_base(tmp_path / "base", family, **CALM)
    plain, compiled = (job(tmp_path, base, on) for on in ("false", "true"))
    losses = [[p.loss for p in run.watcher.losses] for run in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert largest_difference(plain.folder, compiled.folder) < 1e-4
    # Lengths differ from batch to batch; a program for training, and one for scoring.
    assert counters["stats"]["unique_graphs"] <= 3
    assert not counters["graph_break"]
    assert tensors(compiled.folder).keys() == tensors(plain.folder).keys()
    assert not any("_orig_mod" in name for name in compiled.model.state_dict())
    found = evaluate(str(compiled.folder), (), Watcher()).metrics
    assert found == pytest.approx(compiled.metrics["metrics"])


def test_with_checkpointing_in_half_precision(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", num_hidden_layers=1, **CALM)
    settings = ("training.gradient_checkpointing=true", "training.precision=bfloat16")
    plain, compiled = (job(tmp_path, base, on, *settings) for on in ("false", "true"))
    losses = [[p.loss for p in run.watcher.losses] for run in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert counters["stats"]["unique_graphs"] > 0


def test_resumed(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", **CALM)
    whole = job(tmp_path, base, "false")
    with pytest.raises(KeyboardInterrupt):
        train(
            recipe("mrpc", tmp_path, base, *STEPS, "training.compile=true"),
            tmp_path / "run-true",
            stop_after=3,
        )
    resumed = job(tmp_path, base, "true", resume=True)
    assert [p.step for p in resumed.watcher.steps] == [3, 4]
    assert largest_difference(resumed.folder, whole.folder) < 1e-4


def test_a_machine_without_a_compiler(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    loaded = recipe("mrpc", tmp_path, base, "training.compile=true")
    with pytest.raises(UserError, match=r"no compiler is here \(looked for c\+\+, g\+\+") as caught:
        plan_training(loaded, output=str(tmp_path / "run"))
    assert "training.compile=false" in caught.value.hint
    (tmp_path / "mine").write_text("")
    (tmp_path / "mine").chmod(0o755)
    monkeypatch.setenv("CXX", "mine")
    check_compiler(torch.device("cpu"))
    with pytest.raises(UserError, match="one device a process, and 2 are seen") as caught:
        check_compiler(torch.device("cpu"), 2)
    assert "torchrun" in caught.value.hint


@pytest.mark.parametrize(
    ("capability", "triton", "compiler", "message"),
    [
        ((6, 1), True, "gcc", "no device as old as An Old GPU"),
        ((7, 0), False, "gcc", "triton is not installed"),
        ((9, 0), True, "", r"no compiler is here \(looked for cc, gcc, clang\)"),
        ((9, 0), True, "gcc", ""),
    ],
)
def test_on_a_cuda_device(
    capability: tuple[int, int],
    triton: bool,
    compiler: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = "dcft_cli.training.compiling"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "An Old GPU")
    monkeypatch.setattr(f"{module}.importlib.util.find_spec", lambda _: triton or None)
    monkeypatch.setattr(f"{module}.shutil.which", lambda name: name if name == compiler else None)
    if not message:
        check_compiler(torch.device("cuda"))
        return
    with pytest.raises(UserError, match=message):
        check_compiler(torch.device("cuda"))


def test_a_failing_compiler() -> None:
    def fail(graph: object, inputs: object) -> None:
        raise RuntimeError("no header files")

    class Doubling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    model = Doubling()
    model.compile(backend=fail)
    failed = pytest.raises(TrainingError, match=r"torch\.compile failed: .*no header")
    with failed as caught, compile_errors_told():
        model(torch.ones(3, 2))
    assert isinstance(caught.value.__cause__, BackendCompilerFailed)
    assert "training.compile=false" in caught.value.hint
