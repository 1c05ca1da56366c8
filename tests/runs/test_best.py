"""Which checkpoint a run keeps: evaluations are given their scores, one after another."""

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerState

from dcft_cli.errors import Stopped
from dcft_cli.training.stopping import StopAfterStep, StopRequest
from tests.jobs import largest_difference, recipe, train


@pytest.mark.parametrize(
    ("task", "extra", "scores", "best"),
    [
        ("sst2", (), [0.5, 0.9, 0.2], 4),
        ("sst2", (), [0.5, 0.9, 0.9], 4),  # the first of equals
        ("sst2", (), [-0.1, -0.2, -0.3], 2),
        ("stsb", ("task.metric=spearman",), [0.5, 0.4, 0.6], 6),
        ("stsb", ("task.type=regression", "task.name=null"), [0.5, 0.9, 0.2], 4),
        # of an error, the lowest
        ("stsb", ("task.type=regression", "task.name=null", "task.metric=mse"), [0.5, 0.2, 0.9], 4),
    ],
)
def test_the_best_checkpoint_is_kept(
    base: Path, tmp_path: Path, task: str, extra: tuple[str, ...], scores: list[float], best: int
) -> None:
    settings = (*extra, "data.text=[sentence1, sentence2]") if task == "stsb" else extra
    loaded = recipe(task, tmp_path, base, *settings, "training.eval_steps=2")
    job = train(loaded, tmp_path / "run", scores=scores)
    assert job.metrics["best_step"] == best
    name = job.metrics["main_metric"]
    assert job.metrics["metrics"] == {name: scores[best // 2 - 1]}
    assert job.metrics["last_metrics"] == {name: scores[-1]}
    flags = [flag for _, _, flag in job.watcher.scores]
    assert [2 * (n + 1) for n, flag in enumerate(flags) if flag][-1] == best
    checkpoints = job.folder / "checkpoints"
    kept = {f"checkpoint-{step}" for step in (best, 6)}
    assert {path.name for path in checkpoints.iterdir()} >= kept
    assert len(list(checkpoints.iterdir())) == 2
    assert largest_difference(job.folder, checkpoints / f"checkpoint-{best}") == 0
    if best != 6:
        assert largest_difference(job.folder, checkpoints / "checkpoint-6") > 0


def test_early_stopping(base: Path, tmp_path: Path) -> None:
    settings = ("training.early_stopping_patience=2", "training.max_steps=20")
    scores = [0.5, 0.9, 0.2, 0.9, 1.0]
    job = train(recipe("sst2", tmp_path, base, *settings), tmp_path / "run", scores=scores)
    assert (job.metrics["best_step"], job.metrics["last_step"]) == (6, 12)
    assert job.metrics["total_steps"] == 20
    (note,) = (text for text in job.watcher.notes if text.startswith("Stopped early"))
    assert "after step 12 of 20: accuracy was best at step 6" in note
    assert job.metrics["last_metrics"] == {"accuracy": 0.9}
    assert largest_difference(job.folder, job.folder / "checkpoints" / "checkpoint-6") == 0


def test_without_validation_data_the_last_is_kept(base: Path, tmp_path: Path) -> None:
    nothing = ("data.validation=null", "data.hub=null", "training.max_steps=5")
    job = train(recipe("sst2", tmp_path, base, *nothing), tmp_path / "run")
    assert (job.metrics["metrics"], job.metrics["last_metrics"]) == ({}, {})
    assert job.metrics["best_step"] == job.metrics["last_step"] == 5
    assert largest_difference(job.folder, job.folder / "checkpoints" / "checkpoint-5") == 0


class StopIn(StopAfterStep):
    """A request to stop in a step."""

    def __init__(self, step: int) -> None:
        super().__init__(StopRequest())
        self.step = step

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.request.number = int(state.global_step + 1 == self.step)


@pytest.mark.parametrize(("step", "best"), [(1, 1), (3, 2), (5, 5)])
def test_a_run_can_end_where_it_was_stopped(
    step: int, best: int, base: Path, tmp_path: Path
) -> None:
    """Its last step is scored then, and may be the best one."""
    scores = {1: 0.4, 2: 0.5, 3: 0.3, 4: 0.2, 5: 0.6}
    run, every = tmp_path / "run", ("mrpc", tmp_path, base, "training.eval_steps=2")
    with pytest.raises(Stopped):
        before = [scores[2], scores[4]]
        train(recipe(*every), run, scores=before, callbacks=[StopIn(step)])
    shorter = recipe(*every, f"training.max_steps={step}")
    job = train(shorter, run, resume=True, scores=[scores[step]])
    assert (job.metrics["best_step"], job.metrics["last_step"]) == (best, step)
    assert job.metrics["last_metrics"] == {"accuracy": scores[step]}
    assert job.metrics["metrics"] == {"accuracy": scores[best]}
    assert job.watcher.scores == [(step, {"accuracy": scores[step]}, step == best)]
    assert largest_difference(run, run / "checkpoints" / f"checkpoint-{best}") == 0
