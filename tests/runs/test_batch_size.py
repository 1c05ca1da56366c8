"""Runs that do not fit into memory."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, TrainerCallback

from dcft_cli.errors import UserError
from dcft_cli.recipe import LoadedRecipe
from dcft_cli.runs import plan as planning
from dcft_cli.runs.batch_size import smaller_batches
from dcft_cli.runs.plan import plan_training
from dcft_cli.training.machine import find_machine
from tests.jobs import largest_difference, recipe, train

AUTO = "training.auto_batch_size=true"


@dataclass
class Memory:
    """How many rows of a batch a model has memory for, in training and in evaluations."""

    rows: int = 1000
    eval_rows: int = 1000


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    real = BertForSequenceClassification.forward

    @functools.wraps(real)
    def forward(self: Any, *args: Any, **inputs: Any) -> Any:
        limit = memory.rows if torch.is_grad_enabled() else memory.eval_rows
        if len(inputs["input_ids"]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return real(self, *args, **inputs)

    monkeypatch.setattr(BertForSequenceClassification, "forward", forward)
    return memory


class TakeMemory(TrainerCallback):
    """Leave a run less memory from a step on, as another process may."""

    def __init__(self, memory: Memory, rows: int, step: int) -> None:
        self.memory, self.rows, self.step = memory, rows, step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.memory.rows = self.rows


def loaded(base: Path, folder: Path, *more: str) -> LoadedRecipe:
    return recipe("mrpc", folder, base, *more)


def test_smaller_batches_train_the_same(base: Path, tmp_path: Path, memory: Memory) -> None:
    quarters = ("training.batch_size=2", "training.gradient_accumulation_steps=4")
    expected = train(loaded(base, tmp_path, *quarters), tmp_path / "expected")
    memory.rows = 3
    job = train(loaded(base, tmp_path, AUTO), tmp_path / "run")
    assert [note for note in job.watcher.notes if "memory" in note] == [
        f"Out of memory: continuing with training.batch_size={size} and "
        f"training.gradient_accumulation_steps={steps}, for the same steps."
        for size, steps in ((4, 2), (2, 4))
    ]
    assert job.metrics["last_step"] == expected.metrics["last_step"] == 6
    assert largest_difference(job.folder, expected.folder) == 0
    assert job.metrics["metrics"] == expected.metrics["metrics"]
    text = (job.folder / "recipe.yaml").read_text()
    assert "batch_size: 2\n" in text and "gradient_accumulation_steps: 4\n" in text
    again = train(loaded(base, tmp_path, AUTO), tmp_path / "run")  # the same command
    assert again.watcher.steps == [] and again.metrics == job.metrics


def test_batches_of_an_evaluation_shrink_last(base: Path, tmp_path: Path, memory: Memory) -> None:
    memory.eval_rows = 3
    sizes = ("training.batch_size=2", "training.eval_batch_size=8")
    job = train(loaded(base, tmp_path, AUTO, *sizes), tmp_path / "run")
    assert [note for note in job.watcher.notes if "memory" in note] == [
        f"Out of memory: continuing with {changed}, for the same steps."
        for changed in (
            "training.batch_size=1 and training.eval_batch_size=4 and "
            "training.gradient_accumulation_steps=2",
            "training.eval_batch_size=2",
        )
    ]
    assert job.metrics["last_step"] == 6


def test_it_goes_on_from_the_last_checkpoint(base: Path, tmp_path: Path, memory: Memory) -> None:
    first = train(loaded(base, tmp_path), tmp_path / "run")
    lines = len((first.folder / "log.jsonl").read_text().splitlines())
    less = TakeMemory(memory, rows=4, step=5)  # after the checkpoint of step 3
    job = train(loaded(base, tmp_path, AUTO), first.folder, overwrite=True, callbacks=[less])
    assert [progress.step for progress in job.watcher.steps] == [1, 2, 3, 4, 5, 4, 5, 6]
    assert job.trainer.args.per_device_train_batch_size == 4
    assert job.metrics["last_step"] == 6
    assert len((job.folder / "log.jsonl").read_text().splitlines()) == lines


def test_a_checkpoint_of_the_run_before_is_not_continued(
    base: Path, tmp_path: Path, memory: Memory
) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(loaded(base, tmp_path), run, stop_after=5)
    memory.rows = 4
    job = train(loaded(base, tmp_path, AUTO), run, overwrite=True)
    assert [progress.step for progress in job.watcher.steps] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("rows", "settings"), [(4, []), (0, [AUTO])], ids=["off", "one row"])
def test_else_the_error_is_told(
    base: Path, tmp_path: Path, memory: Memory, rows: int, settings: list[str]
) -> None:
    memory.rows = rows
    with pytest.raises(torch.OutOfMemoryError):
        train(loaded(base, tmp_path, *settings), tmp_path / "run")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((8, 1, 6), (4, 2, 3)),
        ((15, 2, 1), (5, 6, 1)),
        ((7, 1, None), (1, 7, None)),
        ((1, 8, 16), (1, 8, 8)),
        ((1, 1, None), (1, 1, 1)),
    ],
)
def test_the_rows_of_a_step_stay(base: Path, tmp_path: Path, sizes: Any, expected: Any) -> None:
    keys = ("batch_size", "gradient_accumulation_steps", "eval_batch_size")
    settings = [
        f"training.{key}={'null' if size is None else size}"
        for key, size in zip(keys, sizes, strict=True)
    ]
    plan = plan_training(loaded(base, tmp_path, AUTO, *settings), output=str(tmp_path / "run"))
    smaller = smaller_batches(plan)
    assert smaller is not None
    assert tuple(getattr(smaller.recipe.training, key) for key in keys) == expected
    assert smaller.batch_size == plan.batch_size


def test_several_processes_refuse_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(*sections: Any) -> Any:
        return replace(find_machine(*sections), processes=2)

    monkeypatch.setattr(planning, "find_machine", two)
    with pytest.raises(UserError, match="works in one process"):
        plan_training(loaded(base, tmp_path, AUTO), output=str(tmp_path / "run"))
