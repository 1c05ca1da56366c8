"""Early stopping counts its patience across a resume."""

from pathlib import Path

import pytest

from dcft_cli.recipe import LoadedRecipe
from tests.jobs import recipe, train

PATIENT = "training.early_stopping_patience=3"
SCORES = [0.5, 0.9, 0.2, 0.9, 0.3, 1.0]  # the fifth evaluation, at step 10, is the third without
STOPPED = 10  # a better one than 0.9


def loaded(base: Path, folder: Path, *more: str) -> LoadedRecipe:
    steps = ("training.max_steps=20", "training.eval_steps=2")
    return recipe("mrpc", folder, base, *steps, *more)


@pytest.mark.parametrize("stop", [5, 7, 9])
def test_patience_is_counted_across_a_resume(base: Path, tmp_path: Path, stop: int) -> None:
    run, done = tmp_path / "run", (stop - 1) // 2
    with pytest.raises(KeyboardInterrupt):
        train(loaded(base, tmp_path, PATIENT), run, stop_after=stop, scores=SCORES[:done])
    job = train(loaded(base, tmp_path, PATIENT), run, resume=True, scores=SCORES[done:])
    assert (job.metrics["last_step"], job.metrics["best_step"]) == (STOPPED, 4)


def test_a_better_score_after_a_resume_starts_the_patience_anew(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(loaded(base, tmp_path, PATIENT), run, stop_after=9, scores=SCORES[:4])
    scores = [0.95, 0.1, 0.2, 0.3, 1.0]
    job = train(loaded(base, tmp_path, PATIENT), run, resume=True, scores=scores)
    assert (job.metrics["last_step"], job.metrics["best_step"]) == (16, 10)


@pytest.mark.parametrize("lost", ["nothing", "metrics.json"])
def test_a_run_that_had_stopped_early_stays_stopped(base: Path, tmp_path: Path, lost: str) -> None:
    run = tmp_path / "run"
    first = train(loaded(base, tmp_path, PATIENT), run, scores=SCORES)
    assert first.metrics["last_step"] == STOPPED
    adapter = (run / "adapter.safetensors").read_bytes()
    (run / lost).unlink(missing_ok=True)
    again = train(loaded(base, tmp_path, PATIENT), run, resume=True, scores=[])
    assert again.watcher.steps == []
    assert "had stopped early" in again.watcher.notes[-1]
    assert (run / "adapter.safetensors").read_bytes() == adapter
    for key in ("metrics", "best_step", "last_metrics", "last_step"):
        assert again.metrics[key] == first.metrics[key]


def test_more_patience_continues_a_run_that_had_stopped(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(loaded(base, tmp_path, PATIENT), run, scores=SCORES)
    more = loaded(base, tmp_path, PATIENT, "training.early_stopping_patience=4")
    job = train(more, run, resume=True, scores=[1.0, 0.1, 0.2, 0.3, 0.4])
    assert (job.metrics["last_step"], job.metrics["best_step"]) == (20, 12)


def test_patience_may_be_added_on_a_resume(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(loaded(base, tmp_path), run, stop_after=5, scores=SCORES[:2])
    patience = "training.early_stopping_patience=1"
    job = train(loaded(base, tmp_path, patience), run, resume=True, scores=[0.1])
    assert job.metrics["last_step"] == 6
