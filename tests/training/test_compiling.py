"""Training with torch.compile: the same losses, the same files."""

import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.utils import counters

from dcft_cli.errors import TrainingError, UserError
from dcft_cli.runs import plan
from dcft_cli.runs import train as training
from dcft_cli.runs.evaluate import evaluate
from dcft_cli.training.compiling import compiling
from dcft_cli.training.machine import Machine
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
    monkeypatch.setattr(training, "compiling", partial(compiling, backend="eager"))
    logging.getLogger("torch.__trace").setLevel(logging.ERROR)  # pytest would keep all of it
    torch._dynamo.reset()
    counters.clear()


def job(folder: Path, base: Path, compile: str, *more: str, **settings: bool) -> Job:
    loaded = recipe("mrpc", folder, base, *STEPS, f"training.compile={compile}", *more)
    return train(loaded, folder / f"run-{compile}", **settings)


def test_compiled_training_gives_the_same_result(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "deberta-v2", **CALM)
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


def test_compiled_training_with_checkpointing_in_half_precision(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", num_hidden_layers=1, **CALM)
    settings = ("training.gradient_checkpointing=true", "training.precision=bfloat16")
    plain, compiled = (job(tmp_path, base, on, *settings) for on in ("false", "true"))
    losses = [[p.loss for p in run.watcher.losses] for run in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert counters["stats"]["unique_graphs"] > 0


def test_a_compiled_run_can_be_resumed(tmp_path: Path) -> None:
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


def test_one_device_per_process(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = Machine(torch.device("cuda:0"), 2, 1, True, "float32")
    monkeypatch.setattr(plan, "find_machine", lambda *_: two)
    with pytest.raises(UserError, match="one device per process, and 2 are visible") as caught:
        job(tmp_path, base, "true")
    assert "torchrun" in caught.value.hint and "training.compile=false" in caught.value.hint


def test_a_compiler_failure_is_a_training_error() -> None:
    def fail(graph: object, inputs: object) -> None:
        raise RuntimeError("no header files")

    class Doubling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    model = Doubling()
    failed = pytest.raises(TrainingError, match=r"torch\.compile failed: .*no header")
    with failed as caught, compiling(model, backend=fail):
        model(torch.ones(3, 2))
    assert isinstance(caught.value.__cause__, BackendCompilerFailed)
    assert "training.compile=false" in caught.value.hint
