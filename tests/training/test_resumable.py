"""What the Trainer saves, and when it refuses to."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

from dcft_cli.errors import TrainingError
from dcft_cli.runs.folder import RunFolder
from tests.jobs import recipe, train

STEPS = ("training.max_steps=20", "training.eval_steps=4", "training.logging_steps=100")
NO_SCORES = ("data.hub=null", "data.config=null", "data.validation=null")


class Spoil(TrainerCallback):
    """Writes a value into a trained weight after a step."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            weight = next(p for p in kwargs["model"].parameters() if p.requires_grad)
            weight.data.view(-1)[0] = self.value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_never_saved(
    value: float, base: Path, tmp_path: Path
) -> None:
    job = recipe("sst2", tmp_path, base, *STEPS, *NO_SCORES)
    with pytest.raises(TrainingError, match="not finite at step 12") as caught:
        train(job, tmp_path / "run", callbacks=[Spoil(11, value)])
    run = RunFolder(tmp_path / "run")
    last = run.last_checkpoint()
    assert last is not None and last.name == "checkpoint-8"
    assert f"is kept: {last}." in caught.value.hint
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["checkpoint-4", "checkpoint-8"]
    assert not run.adapter.exists()


def test_a_run_with_a_loss_that_is_not_finite_is_never_saved(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights stay finite, as where float16 skips the step."""
    real = Trainer.training_step

    def spoiled(trainer: Trainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = real(trainer, *args, **kwargs)
        return loss * float("nan") if trainer.state.global_step == 10 else loss

    monkeypatch.setattr(Trainer, "training_step", spoiled)
    with pytest.raises(TrainingError, match="not finite at step 12"):
        train(recipe("sst2", tmp_path, base, *STEPS, *NO_SCORES), tmp_path / "run")
    last = RunFolder(tmp_path / "run").last_checkpoint()
    assert last is not None and last.name == "checkpoint-8"


def test_without_a_checkpoint_the_error_promises_none(base: Path, tmp_path: Path) -> None:
    job = recipe("sst2", tmp_path, base, *STEPS, *NO_SCORES)
    with pytest.raises(TrainingError, match="not finite at step 4") as caught:
        train(job, tmp_path / "run", callbacks=[Spoil(2, float("nan"))])
    assert caught.value.hint.endswith("No checkpoint exists.")


def test_the_best_before_the_last_one_is_kept(base: Path, tmp_path: Path) -> None:
    """Each of the two can be resumed without the other."""
    job = recipe("sst2", tmp_path, base, *STEPS)
    kept = []

    class Look(TrainerCallback):
        def on_save(self, args: Any, *others: Any, **kwargs: Any) -> None:
            steps = [int(p.name.partition("-")[2]) for p in Path(args.output_dir).iterdir()]
            kept.append(sorted(steps))

    train(job, tmp_path / "run", callbacks=[Look()], scores=[0.5, 0.4, 0.6, 0.3, 0.9])
    assert kept == [[4], [4, 8], [4, 12], [12, 16], [12, 20]]


def test_nothing_in_a_checkpoint_is_unpickled(base: Path, tmp_path: Path) -> None:
    job = recipe("sst2", tmp_path, base, *STEPS)
    train(job, tmp_path / "run")
    checkpoint = RunFolder(tmp_path / "run").last_checkpoint()
    assert checkpoint is not None
    for file in checkpoint.iterdir():
        assert file.suffix in (".json", ".safetensors")
        if file.suffix == ".json":
            assert json.loads(file.read_text())


def test_resuming_loads_no_pickle(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = recipe("sst2", tmp_path, base, *STEPS, "training.logging_steps=1")
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "run", stop_after=6)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(torch, "load", refuse)
    resumed = train(job, tmp_path / "run", resume=True)
    assert resumed.watcher.steps[0].step == 5
