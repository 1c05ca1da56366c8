"""Runs that were interrupted, and go on as if they had not been."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dcft_cli.adapter_file.read import ADAPTER_FILE
from dcft_cli.errors import AdapterFileError, RunError, UserError
from dcft_cli.recipe import LoadedRecipe
from dcft_cli.recipe.settings import settings
from dcft_cli.runs import plan as planning
from dcft_cli.runs.folder import RunFolder
from dcft_cli.runs.plan import plan_training
from dcft_cli.runs.resumption import HARMLESS
from dcft_cli.training.machine import Machine, find_machine
from dcft_cli.training.resumable import RUN_STATE
from tests.families import save_base
from tests.jobs import Job, largest_difference, recipe, train
from tests.samples import rows_of, write_rows

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


def test_a_run_may_be_logged_and_saved_at_different_steps(base: Path, tmp_path: Path) -> None:
    """A logged loss is a mean that begins before the checkpoint."""
    job = loaded(base, tmp_path, "training.logging_steps=3")
    whole = train(job, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "run", stop_after=6)
    resumed = train(job, tmp_path / "run", resume=True)
    assert resumed.watcher.steps[0].step == 5
    assert log(tmp_path / "run") == log(whole.folder)


def test_a_finished_run_can_be_resumed(base: Path, tmp_path: Path) -> None:
    first = train(loaded(base, tmp_path), tmp_path / "run")
    (tmp_path / "run" / "adapter.safetensors").rename(tmp_path / "adapter.safetensors")
    (tmp_path / "run").rename(tmp_path / "moved")
    again = train(loaded(base, tmp_path), tmp_path / "moved", resume=True)
    assert again.watcher.steps == []
    assert [note for note in again.watcher.notes if note.startswith("The run is finished")]
    assert largest_difference(tmp_path / "moved", tmp_path) == 0
    for key in ("metrics", "best_step", "last_metrics", "last_step", "train_loss", "notes"):
        assert again.metrics[key] == first.metrics[key]
    longer = loaded(base, tmp_path, f"training.max_steps={LENGTH + 2}")
    job = train(longer, tmp_path / "moved", resume=True)
    assert [p.step for p in job.watcher.steps] == [LENGTH + 1, LENGTH + 2]


def test_results_of_a_shorter_run_are_replaced(base: Path, tmp_path: Path) -> None:
    """As if the longer run had been killed after its last checkpoint."""
    run = tmp_path / "run"
    train(loaded(base, tmp_path), run)
    results = {file: file.read_bytes() for file in (run / "metrics.json", run / ADAPTER_FILE)}
    longer = loaded(base, tmp_path, f"training.max_steps={LENGTH + 2}")
    expected = train(longer, run, resume=True).metrics
    for file, content in results.items():
        file.write_bytes(content)
    again = train(longer, run)
    assert again.watcher.steps == []
    assert (again.metrics["last_step"], again.metrics["metrics"]) == (
        LENGTH + 2,
        expected["metrics"],
    )
    assert json.loads((run / "metrics.json").read_text())["last_step"] == LENGTH + 2


def test_a_finished_run_can_be_written_in_another_type(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(loaded(base, tmp_path), run)
    train(loaded(base, tmp_path, "adapter.file_dtype=bfloat16"), run, resume=True)
    assert {tensor.dtype for tensor in load_file(run / ADAPTER_FILE).values()} == {torch.bfloat16}


def test_seconds_count_the_time_before_a_resume(stopped: Path, base: Path, tmp_path: Path) -> None:
    state = stopped / "checkpoints" / "checkpoint-4" / RUN_STATE
    before = json.loads(state.read_text())["seconds"]
    assert train(loaded(base, tmp_path), stopped).metrics["seconds"] > before > 0


@pytest.mark.parametrize(
    "other",
    [
        *("adapter.rank=2", "adapter.targets=[Q, V]", "adapter.scale=3", "adapter.init=zero"),
        *("task.labels=[no, yes]", "task.metric=accuracy", "model.dtype=bfloat16"),
        *("training.learning_rate=0.5", "training.weight_decay=0.1", "training.seed=1"),
        *("training.scheduler=cosine", "training.group_by_length=false", "data.max_length=16"),
    ],
)
def test_other_settings_are_refused_and_named(
    stopped: Path, base: Path, tmp_path: Path, other: str
) -> None:
    before = (stopped / "recipe.yaml").read_text()
    with pytest.raises(RunError, match="cannot be resumed: settings have changed") as caught:
        train(loaded(base, tmp_path, other), stopped, resume=True)
    assert f"\n  {other.partition('=')[0]}: " in caught.value.message
    assert "->" in caught.value.message
    assert (stopped / "recipe.yaml").read_text() == before


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("training.batch_size=4", "rows of an optimizer step .*: 8 -> 4"),
        ("training.gradient_accumulation_steps=2", "rows of an optimizer step .*: 8 -> 16"),
        ("training.max_steps=3", "optimizer steps: 4 done -> 3"),
    ],
)
def test_other_steps_are_refused(
    stopped: Path, base: Path, tmp_path: Path, other: str, said: str
) -> None:
    with pytest.raises(RunError, match=said) as caught:
        train(loaded(base, tmp_path, other), stopped, resume=True)
    assert "learning rate" not in caught.value.message
    assert caught.value.message.count("optimizer steps: ") <= 1


def test_other_processes_are_refused_unless_they_share_the_same_rows(
    stopped: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(*sections: Any) -> Machine:
        return replace(find_machine(*sections), processes=2)

    monkeypatch.setattr(planning, "find_machine", two)
    with pytest.raises(RunError, match=r"rows of an optimizer step .*: 8 -> 16"):
        plan_training(loaded(base, tmp_path), output=str(stopped), resume=True)
    halves = loaded(base, tmp_path, "training.batch_size=4")
    plan = plan_training(halves, output=str(stopped), resume=True)
    assert plan.resumption is not None
    assert "Changed since checkpoint-4: devices: 1 -> 2" in plan.resumption.notes


@pytest.mark.parametrize("which", ["train", "dev"])
def test_other_rows_are_refused(stopped: Path, base: Path, tmp_path: Path, which: str) -> None:
    again = loaded(base, tmp_path)
    rows = rows_of("mrpc", 24 if which == "train" else 12, seed=5)
    write_rows(tmp_path / "data" / f"mrpc-{which}.jsonl", rows)
    title = "training" if which == "train" else "validation"
    with pytest.raises(RunError, match=f"\n  {title} rows: changed"):
        train(again, stopped, resume=True)


def test_harmless_changes_are_noted(stopped: Path, base: Path, tmp_path: Path) -> None:
    moved = (tmp_path / "data" / "mrpc-dev.jsonl").rename(tmp_path / "dev.jsonl")
    longer = f"training.max_steps={LENGTH + 2}"
    given = loaded(base, tmp_path, longer, "training.logging_steps=2", f"data.validation={moved}")
    job = train(given, stopped, resume=True)
    notes = [n.split(": ", 1)[1] for n in job.watcher.notes if n.startswith("Changed since")]
    assert f"training.max_steps: {LENGTH} -> {LENGTH + 2}" in notes
    assert "training.logging_steps: 1 -> 2" in notes
    assert [note for note in notes if note.startswith("data.validation: ")]
    assert f"optimizer steps: {LENGTH} -> {LENGTH + 2}" in notes
    rate = "The learning rate follows the new number of steps from here on."
    assert rate in job.watcher.notes
    assert job.watcher.steps[0].step == 5
    # The schedule is that of the longer run, from the first step on.
    rates = [(p.step, p.learning_rate) for p in job.watcher.losses]
    expected = [(step, pytest.approx(0.01 * (13 - step) / 12)) for step in (6, 8, 10, 12)]
    assert rates == expected


def test_the_same_rows_of_a_step_in_other_batches(
    stopped: Path, base: Path, tmp_path: Path
) -> None:
    halves = ("training.batch_size=4", "training.gradient_accumulation_steps=2")
    job = train(loaded(base, tmp_path, *halves), stopped, resume=True)
    assert (job.watcher.steps[0].step, job.metrics["last_step"]) == (5, LENGTH)


def test_the_same_recipe_goes_on_unasked(stopped: Path, base: Path, tmp_path: Path) -> None:
    job = train(loaded(base, tmp_path), stopped)
    assert job.watcher.steps[0].step == 5
    assert "has a run with the same recipe and rows" in job.watcher.notes[0]
    adapter = (stopped / "adapter.safetensors").read_bytes()
    again = train(loaded(base, tmp_path), stopped)
    assert again.watcher.steps == []
    assert "The run is finished" in again.watcher.notes[-1]
    assert (stopped / "adapter.safetensors").read_bytes() == adapter
    over = train(loaded(base, tmp_path), stopped, overwrite=True)
    assert over.watcher.steps[0].step == 1


def test_another_recipe_does_not_go_on_unasked(stopped: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="contains a run already: settings have changed") as caught:
        train(loaded(base, tmp_path, "training.logging_steps=2"), stopped)
    assert "--resume continues it" in caught.value.hint
    with pytest.raises(RunError, match="contains a run already: settings have changed") as caught:
        train(loaded(base, tmp_path, "training.seed=1"), stopped)
    assert "--resume" not in caught.value.hint and "--overwrite" in caught.value.hint


def test_a_run_that_saved_nothing_starts_over(base: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(loaded(base, tmp_path), tmp_path / "run", stop_after=1)
    with pytest.raises(RunError, match="no checkpoint to resume from"):
        train(loaded(base, tmp_path), tmp_path / "run", resume=True)
    job = train(loaded(base, tmp_path), tmp_path / "run")
    assert job.watcher.steps[0].step == 1
    steps = [line["step"] for line in log(tmp_path / "run") if "loss" in line]
    assert steps == list(range(1, LENGTH + 1))


def test_resume_and_overwrite_exclude_each_other(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--overwrite starts over, --resume goes on"):
        train(loaded(base, tmp_path), tmp_path / "run", resume=True, overwrite=True)


def test_every_harmless_setting_exists() -> None:
    assert HARMLESS < {setting.key for setting in settings()}


def test_another_base(stopped: Path, tmp_path: Path) -> None:
    other = save_base(tmp_path / "other", initializer_range=0.1)
    with pytest.raises(AdapterFileError, match="other base weights"):
        train(loaded(other, tmp_path), stopped, resume=True)


FILES = [
    *("adapter.safetensors", "manifest.json", "optimizer.safetensors"),
    *("random.safetensors", "run_state.json", "trainer_state.json"),
]


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [Path.unlink, empty, halve, flip])
def test_a_damaged_checkpoint_is_named_and_passed_over(
    stopped: Path, base: Path, tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    newest = stopped / "checkpoints" / "checkpoint-4"
    assert sorted(file.name for file in newest.iterdir()) == FILES
    damage(newest / name)
    plan = plan_training(loaded(base, tmp_path), output=str(stopped), resume=True)
    assert plan.resumption is not None
    assert plan.resumption.checkpoint.name == "checkpoint-2"
    (note,) = plan.resumption.notes
    assert note.startswith(f"checkpoint-4 is passed over: {name} ")


def test_a_damaged_checkpoint_changes_nothing(stopped: Path, base: Path, tmp_path: Path) -> None:
    whole = train(loaded(base, tmp_path), tmp_path / "whole")
    checkpoints = stopped / "checkpoints"
    empty(checkpoints / "checkpoint-4" / "trainer_state.json")
    shutil.copytree(checkpoints / "checkpoint-4", checkpoints / "checkpoint-50-copy")
    shutil.copytree(checkpoints / "checkpoint-2", checkpoints / "checkpoint-999")
    job = train(loaded(base, tmp_path), stopped, resume=True)
    assert job.watcher.steps[0].step == 3
    assert "checkpoint-999 is passed over: it is a copy of checkpoint-2." in job.watcher.notes
    assert largest_difference(stopped, whole.folder) == 0
    assert log(stopped) == log(whole.folder)
    assert (checkpoints / "checkpoint-50-copy").is_dir()
    assert not (checkpoints / "checkpoint-999").exists()


def test_what_a_killed_run_has_left_is_removed(stopped: Path, base: Path, tmp_path: Path) -> None:
    file, folder = stopped / ".log.jsonl.999.part", stopped / "checkpoints/.checkpoint-6.999.part"
    file.touch()
    folder.mkdir()
    train(loaded(base, tmp_path), stopped)
    assert not file.exists() and not folder.exists()


def test_every_checkpoint_damaged(stopped: Path, base: Path, tmp_path: Path) -> None:
    for checkpoint in (stopped / "checkpoints").iterdir():
        empty(checkpoint / "optimizer.safetensors")
    for resume in (True, False):
        with pytest.raises(
            RunError, match=r"optimizer\.safetensors has 0 bytes instead of"
        ) as found:
            train(loaded(base, tmp_path), stopped, resume=resume)
        assert "checkpoint-2" in found.value.message and "checkpoint-4" in found.value.message
        assert "--overwrite" in found.value.hint


def test_a_checkpoint_needs_the_best_one(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(loaded(base, tmp_path), run, stop_after=7, scores=[0.9, 0.5, 0.6])
    checkpoints = run / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-2", "checkpoint-6"]
    empty(checkpoints / "checkpoint-2" / "adapter.safetensors")
    with pytest.raises(RunError, match="checkpoint-6 cannot be resumed: it needs checkpoint-2"):
        train(loaded(base, tmp_path), run, resume=True)


def test_the_recipe_is_missing(stopped: Path, base: Path, tmp_path: Path) -> None:
    (stopped / "recipe.yaml").unlink()
    with pytest.raises(RunError, match=r"recipe\.yaml is missing"):
        train(loaded(base, tmp_path), stopped, resume=True)


def test_a_recipe_that_was_edited_does_not_hide_another_adapter(
    stopped: Path, base: Path, tmp_path: Path
) -> None:
    stored = stopped / "recipe.yaml"
    stored.write_text(stored.read_text().replace("rank: 1", "rank: 2"))
    with pytest.raises(RunError, match="another adapter, or other labels"):
        train(loaded(base, tmp_path, "adapter.rank=2"), stopped, resume=True)


def test_a_damaged_log_line_is_named(stopped: Path, base: Path, tmp_path: Path) -> None:
    log = stopped / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines[:2], "[1, 2\n", *lines[2:]]))
    with pytest.raises(RunError, match=r"log\.jsonl, line 3, is damaged"):
        train(loaded(base, tmp_path), stopped, resume=True)
