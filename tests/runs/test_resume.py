"""Runs that were interrupted, and go on as if they had not been."""

import json
from pathlib import Path

import pytest

from dcft_cli.errors import AdapterFileError, RunError
from dcft_cli.recipe import LoadedRecipe
from dcft_cli.runs.folder import RunFolder
from tests.families import save_base
from tests.jobs import Job, largest_difference, recipe, train

LENGTH = 10  # steps; an epoch has 3


def loaded(base: Path, folder: Path, *more: str) -> LoadedRecipe:
    steps = (f"training.max_steps={LENGTH}", "training.eval_steps=2")
    return recipe("mrpc", folder, base, *steps, *more)


def log(folder: Path) -> list[dict]:
    """The log without its speeds, which no two runs share."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]


@pytest.fixture(scope="module", params=["true", "false"], ids=["grouped", "shuffled"])
def whole(
    request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Job:
    """A run with dropout that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    grouping = f"training.group_by_length={request.param}"
    return train(loaded(base, folder, grouping, "training.scheduler=cosine"), folder / "run")


# Within the first epoch, at its end, and within the third; the last checkpoint is 2, 2, 6, 8.
@pytest.mark.parametrize("stop", [3, 4, 7, 9])
def test_a_resumed_run_equals_an_uninterrupted_one(whole: Job, stop: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    again = LoadedRecipe(whole.plan.recipe, "mrpc", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(again, run, stop_after=stop)
    assert not (run / "adapter.safetensors").exists()
    checkpoint = RunFolder(run).last_checkpoint()
    assert checkpoint == run / "checkpoints" / f"checkpoint-{(stop - 1) // 2 * 2}"
    job = train(again, run, resume=True)
    assert job.watcher.steps[0].step == (stop - 1) // 2 * 2 + 1
    last = f"checkpoints/checkpoint-{LENGTH}"
    assert largest_difference(run / last, whole.folder / last) == 0
    assert largest_difference(run, whole.folder) == 0
    for key in ("metrics", "best_step", "last_metrics", "last_step", "train_loss", "epochs"):
        assert job.metrics[key] == whole.metrics[key], key
    assert log(run) == log(whole.folder)


# Python 3.12 and later warn of it, where nobody sees it but under pytest.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_workers_do_not_change_the_result(whole: Job, tmp_path: Path) -> None:
    recipe = whole.plan.recipe
    training = recipe.training.model_copy(update={"num_workers": 1})
    again = LoadedRecipe(recipe.model_copy(update={"training": training}), "mrpc", tmp_path)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(again, run, stop_after=7)
    job = train(again, run, resume=True)
    assert job.trainer.args.dataloader_num_workers == 1
    assert largest_difference(run, whole.folder) == 0
    assert log(run) == log(whole.folder)


@pytest.fixture
def stopped(base: Path, tmp_path: Path) -> Path:
    """A run folder with checkpoints 2 and 4 and no adapter."""
    with pytest.raises(KeyboardInterrupt):
        train(loaded(base, tmp_path), tmp_path / "run", stop_after=5)
    return tmp_path / "run"


def test_an_incomplete_checkpoint_is_skipped(stopped: Path, base: Path, tmp_path: Path) -> None:
    (stopped / "checkpoints" / "checkpoint-4" / "trainer_state.json").unlink()
    job = train(loaded(base, tmp_path), stopped, resume=True)
    assert job.watcher.steps[0].step == 3
    assert job.metrics["last_step"] == LENGTH


def test_a_finished_run_can_be_resumed(base: Path, tmp_path: Path) -> None:
    first = train(loaded(base, tmp_path), tmp_path / "run")
    (tmp_path / "run" / "adapter.safetensors").rename(tmp_path / "adapter.safetensors")
    (tmp_path / "run").rename(tmp_path / "moved")
    again = train(loaded(base, tmp_path), tmp_path / "moved", resume=True)
    assert again.watcher.steps == []
    assert [note for note in again.watcher.notes if note.startswith("The run is finished")]
    assert largest_difference(tmp_path / "moved", tmp_path) == 0
    for key in ("metrics", "best_step", "last_metrics", "last_step", "train_loss"):
        assert again.metrics[key] == first.metrics[key]
    longer = loaded(base, tmp_path, f"training.max_steps={LENGTH + 2}")
    job = train(longer, tmp_path / "moved", resume=True)
    assert [p.step for p in job.watcher.steps] == [LENGTH + 1, LENGTH + 2]


@pytest.mark.parametrize(
    "other",
    [
        *("adapter.rank=2", "adapter.targets=[Q, V]", "adapter.scale=3"),
        *("task.labels=[no, yes]", "task.labels=[not_entailment, entailment]"),
    ],
)
def test_another_adapter_or_other_labels(
    stopped: Path, base: Path, tmp_path: Path, other: str
) -> None:
    with pytest.raises(RunError, match="another adapter, or other labels"):
        train(loaded(base, tmp_path, other), stopped, resume=True)


def test_another_base(stopped: Path, tmp_path: Path) -> None:
    other = save_base(tmp_path / "other", initializer_range=0.1)
    with pytest.raises(AdapterFileError, match="other base weights"):
        train(loaded(other, tmp_path), stopped, resume=True)


def test_a_damaged_checkpoint(stopped: Path, base: Path, tmp_path: Path) -> None:
    adapter = stopped / "checkpoints" / "checkpoint-4" / "adapter.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-4])
    with pytest.raises(AdapterFileError, match=r"checkpoint-4.* truncated"):
        train(loaded(base, tmp_path), stopped, resume=True)


PATIENT = ("training.early_stopping_patience=3", "training.max_steps=20", "training.eval_steps=2")
SCORES = [0.5, 0.9, 0.2, 0.9, 0.3, 1.0]  # the fifth evaluation, at step 10, is the third without
STOPPED = 10  # a better one than 0.9


@pytest.mark.parametrize("stop", [5, 7, 9])
def test_patience_is_counted_across_a_resume(base: Path, tmp_path: Path, stop: int) -> None:
    run, done = tmp_path / "run", (stop - 1) // 2
    with pytest.raises(KeyboardInterrupt):
        train(loaded(base, tmp_path, *PATIENT), run, stop_after=stop, scores=SCORES[:done])
    job = train(loaded(base, tmp_path, *PATIENT), run, resume=True, scores=SCORES[done:])
    assert (job.metrics["last_step"], job.metrics["best_step"]) == (STOPPED, 4)


def test_a_better_score_after_a_resume_starts_the_patience_anew(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(loaded(base, tmp_path, *PATIENT), run, stop_after=9, scores=SCORES[:4])
    scores = [0.95, 0.1, 0.2, 0.3, 1.0]
    job = train(loaded(base, tmp_path, *PATIENT), run, resume=True, scores=scores)
    assert (job.metrics["last_step"], job.metrics["best_step"]) == (16, 10)


@pytest.mark.parametrize("lost", ["nothing", "metrics.json"])
def test_a_run_that_had_stopped_early_stays_stopped(base: Path, tmp_path: Path, lost: str) -> None:
    run = tmp_path / "run"
    first = train(loaded(base, tmp_path, *PATIENT), run, scores=SCORES)
    assert first.metrics["last_step"] == STOPPED
    adapter = (run / "adapter.safetensors").read_bytes()
    (run / lost).unlink(missing_ok=True)
    again = train(loaded(base, tmp_path, *PATIENT), run, resume=True, scores=[])
    assert again.watcher.steps == []
    assert "had stopped early" in again.watcher.notes[-1]
    assert (run / "adapter.safetensors").read_bytes() == adapter
    for key in ("metrics", "best_step", "last_metrics", "last_step"):
        assert again.metrics[key] == first.metrics[key]


def test_more_patience_continues_a_run_that_had_stopped(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(loaded(base, tmp_path, *PATIENT), run, scores=SCORES)
    more = loaded(base, tmp_path, *PATIENT, "training.early_stopping_patience=4")
    job = train(more, run, resume=True, scores=[1.0, 0.1, 0.2, 0.3, 0.4])
    assert (job.metrics["last_step"], job.metrics["best_step"]) == (20, 12)


def test_patience_may_be_added_on_a_resume(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(loaded(base, tmp_path), run, stop_after=5, scores=SCORES[:2])
    patience = "training.early_stopping_patience=1"
    job = train(loaded(base, tmp_path, patience), run, resume=True, scores=[0.1])
    assert job.metrics["last_step"] == 6
