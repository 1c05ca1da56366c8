"""A process that works on a sweep, in this one."""

import json
from pathlib import Path

import pytest
from optuna.trial import create_trial

from dcft_cli.recipe import load_recipe
from dcft_cli.runs.folder import RunFolder
from dcft_cli.runs.plan import plan_training
from dcft_cli.runs.train import train
from dcft_cli.sweeping.claims import Status
from dcft_cli.sweeping.folders import RECORD
from dcft_cli.sweeping.summary import best_run, command, failures, settings_of, to_json
from dcft_cli.training.reporting import Reporter
from tests.jobs import largest_difference
from tests.samples import rows_of, write_rows
from tests.sweeping.sweeps import board_of, planned, work, write_recipe

GRID = ("adapter.kernel_size=2,4",)
RATES = "training.learning_rate=1e-6..1.0"


@pytest.fixture
def recipe(tmp_path: Path, base: Path) -> Path:
    return write_recipe(tmp_path, base)


def events(folder: Path) -> list[str]:
    lines = (folder / RECORD).read_text("utf-8").splitlines()[1:]
    return [json.loads(line)["event"] for line in lines]


def test_each_run_is_that_of_dcft_train(recipe: Path, tmp_path: Path) -> None:
    sweep = planned(recipe, grid=GRID, seeds=2)
    board, seen = work(sweep, tmp_path / "out")
    assert [run.name for run in seen.runs] == [cell.name for cell in sweep.cells]
    assert seen.progresses == [(1, 4), (2, 4), (3, 4), (4, 4)]
    runs = board.runs()
    assert {run.status for run in runs} == {Status.DONE}
    for run in runs:
        metrics = json.loads((run.folder / "metrics.json").read_text("utf-8"))
        assert (run.metric, run.score) == ("accuracy", metrics["metrics"]["accuracy"])
        assert metrics["seed"] == run.cell.differing["training.seed"]
        assert events(run.folder) == ["started", "done"]
    # The last of four in one process, and the same alone.
    alone = load_recipe(str(recipe), runs[-1].cell.overrides)
    train(plan_training(alone, output=str(tmp_path / "alone")), Reporter())
    assert largest_difference(tmp_path / "alone", runs[-1].folder) == 0.0
    again, seen = work(sweep, tmp_path / "out")
    assert seen.runs == [] and again.runs() == runs


def test_a_wider_sweep_repeats_nothing(recipe: Path, tmp_path: Path) -> None:
    work(planned(recipe, grid=GRID), tmp_path / "out")
    sweep = planned(recipe, grid=[*GRID, "training.learning_rate=0.01,0.02"])
    board, seen = work(sweep, tmp_path / "out")
    assert [run.name for run in seen.runs] == ["kernel2-lr0.02", "kernel4-lr0.02"]
    names = [run.name for run in board.runs()]
    assert names == ["kernel2", "kernel2-lr0.02", "kernel4", "kernel4-lr0.02"], "where they are"


def test_a_changed_row_makes_new_runs(recipe: Path, tmp_path: Path) -> None:
    sweep = planned(recipe, grid=GRID)
    first, _ = work(sweep, tmp_path / "out")
    before = first.runs()
    rows = rows_of("sst2", 24)
    write_rows(tmp_path / "data" / "sst2-train.jsonl", [*rows[:-1], rows[0]])
    board, seen = work(planned(recipe, grid=GRID), tmp_path / "out")
    assert [run.cell.name for run in seen.runs] == ["kernel2", "kernel4"]
    folders = [run.folder for run in before + board.runs()]
    assert len(set(folders)) == 4, "the earlier runs are kept"
    assert all(events(folder) == ["started", "done"] for folder in folders)


def test_a_failure_is_reported_and_not_repeated(recipe: Path, tmp_path: Path) -> None:
    sweep = planned(recipe, grid=["training.learning_rate=1e9,0.01"])
    board, seen = work(sweep, tmp_path / "out")
    failed, done = board.runs()
    assert (failed.status, done.status) == (Status.FAILED, Status.DONE)
    assert failed.message and failed.message.startswith("Training diverged")
    assert seen.runs[0].message == failed.message
    assert failures(board.runs()) == {failed.message: ["lr1e9"]}
    assert work(sweep, tmp_path / "out")[1].runs == []
    _, seen = work(sweep, tmp_path / "out", retry_failed=True)
    assert [run.name for run in seen.runs] == ["lr1e9"], "once, and not until it succeeds"
    assert events(failed.folder) == ["started", "failed"] * 2
    assert to_json(sweep, board.runs())["counts"] == {"done": 1, "failed": 1}


def test_a_folder_that_another_process_trains_into(recipe: Path, tmp_path: Path) -> None:
    sweep = planned(recipe)
    (slot,) = board_of(sweep, tmp_path / "out").slots
    folder = board_of(sweep, tmp_path / "out").folder(*slot, create=True)
    with RunFolder(folder).lock():
        board, _ = work(sweep, tmp_path / "out")
    (run,) = board.runs()
    assert run.status == Status.FAILED
    assert f"{folder} is in use by process" in (run.message or "")
    board, _ = work(sweep, tmp_path / "out", retry_failed=True)
    assert [run.status for run in board.runs()] == [Status.DONE]


def test_an_interrupted_run_goes_on_from_its_checkpoint(recipe: Path, tmp_path: Path) -> None:
    sweep = planned(recipe, grid=GRID)
    with pytest.raises(KeyboardInterrupt):
        work(sweep, tmp_path / "out", stop_at=3)
    folder = tmp_path / "out" / "kernel2"
    assert events(folder) == ["started", "interrupted"]
    assert (folder / "checkpoints" / "checkpoint-2").is_dir()
    board, _ = work(sweep, tmp_path / "out")
    assert {run.status for run in board.runs()} == {Status.DONE}
    assert events(folder) == ["started", "interrupted", "started", "done"]
    whole, _ = work(sweep, tmp_path / "whole")
    assert largest_difference(whole.runs()[0].folder, folder) < 1e-6


def test_settings_over_seeds(recipe: Path, tmp_path: Path) -> None:
    sweep = planned(recipe, ["task.metric=accuracy"], grid=GRID, seeds=3)
    board, _ = work(sweep, tmp_path / "out")
    runs = board.runs()
    found = {setting.name: setting for setting in settings_of(runs)}
    assert found.keys() == {"kernel2", "kernel4"}
    scores = [run.score or 0.0 for run in runs if run.cell.setting == "kernel2"]
    mean = sum(scores) / 3
    assert found["kernel2"].mean == pytest.approx(mean)
    variance = sum((score - mean) ** 2 for score in scores) / 2
    assert found["kernel2"].deviation == pytest.approx(variance**0.5)
    first, second = settings_of(runs)
    assert (first.mean or 0) >= (second.mean or 0)
    best = best_run(runs)
    assert best is not None and best.cell.setting == first.name
    assert best.cell.recipe.training.seed == 1, "not the luckiest seed"
    assert command(sweep, best).endswith(f"adapter.kernel_size={first.name[-1]} training.seed=1")


@pytest.fixture
def regression(tmp_path: Path, base: Path) -> Path:
    """A recipe with a score that is better when lower, and differs in every run."""
    task = ("task={type: regression, metric: mse}", "data.text=[sentence1, sentence2]")
    return write_recipe(tmp_path, base, "stsb", *task, "training.eval_steps=1")


def test_a_search_finds_the_best(regression: Path, tmp_path: Path) -> None:
    sweep = planned(regression, tune=[RATES], trials=4)
    board, _ = work(sweep, tmp_path / "out")
    runs = board.runs()
    assert [run.name for run in runs] == [f"tiny-trial{number}" for number in range(1, 5)]
    assert {run.status for run in runs} == {Status.DONE}, "too few to tell a bad one"
    best = best_run(runs)
    assert best is not None
    assert best.score == min(run.score for run in runs if run.score is not None)
    rate = best.numbers["training.learning_rate"]
    assert command(sweep, best).endswith(f" training.learning_rate={rate!r}")
    saved = load_recipe(str(best.folder / "recipe.yaml")).recipe
    assert saved.training.learning_rate == rate
    assert 1e-6 <= rate <= 1.0
    _, seen = work(planned(regression, tune=[RATES], trials=5), tmp_path / "out")
    assert [run.name for run in seen.runs] == ["tiny-trial5"]


def test_a_trial_that_is_worse_than_the_others_is_pruned(regression: Path, tmp_path: Path) -> None:
    sweep = planned(regression, tune=[RATES], trials=2)
    study = board_of(sweep, tmp_path / "out").study(sweep.cells[0])
    for _ in range(5):  # as if found before, by a much wider search
        study.add_trial(create_trial(value=0.01, intermediate_values={1: 0.02, 2: 0.01}))
    board, seen = work(sweep, tmp_path / "out")
    assert [run.status for run in seen.runs] == [Status.PRUNED] * 2
    assert [(run.metric, run.step) for run in board.runs()] == [("mse", 1)] * 2
    for run in board.runs():
        assert run.score is not None and run.score > 0.02
        assert events(run.folder) == ["started", "pruned"]
        assert not (run.folder / "metrics.json").exists()
    assert best_run(board.runs()) is None
    assert work(sweep, tmp_path / "out")[1].runs == [], "it is final"


def test_an_interrupted_trial_keeps_its_numbers(regression: Path, tmp_path: Path) -> None:
    sweep = planned(regression, tune=[RATES], trials=1)
    with pytest.raises(KeyboardInterrupt):
        work(sweep, tmp_path / "out", stop_at=3)
    (run,) = board_of(sweep, tmp_path / "out").runs()
    assert run.status == Status.INTERRUPTED
    board, _ = work(sweep, tmp_path / "out")
    assert board.runs()[0].status == Status.DONE
    assert board.runs()[0].numbers == run.numbers
    scores = board.study(sweep.cells[0]).best_trial.intermediate_values
    assert sorted(scores) == [1, 2, 3, 4], "those before the checkpoint count too"


def test_the_same_search_finds_the_same(recipe: Path, tmp_path: Path) -> None:
    tune = {"tune": ["training.learning_rate=1e-4..1e-1", "adapter.rank=1..4"], "trials": 2}
    first, second = (
        work(planned(recipe, **tune), tmp_path / name)[0].runs() for name in ("one", "two")
    )
    assert [run.numbers for run in first] == [run.numbers for run in second]
    assert first[0].numbers != first[1].numbers
    assert isinstance(first[0].numbers["adapter.rank"], int)
