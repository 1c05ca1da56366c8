"""What a sweep prints: lines while it runs, tables at its end, at any width."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dcft_cli.console import sweeps
from dcft_cli.sweeping.board import Board, Run
from dcft_cli.sweeping.claims import Status
from tests.sweeping.sweeps import planned

RTE = Path("recipes/rte.yaml")
GRID = ("adapter.targets=[Q, V],[Q, K, V, O, FFN]", "adapter.kernel_size=2,4")


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that prints at a width and returns the lines."""

    def run(width: int, function: Any, *arguments: Any) -> list[str]:
        console = Console(width=width, record=True, highlight=False, quiet=False)
        monkeypatch.setattr(sweeps, "out", console)
        monkeypatch.setattr(sweeps, "err", console)
        function(*arguments)
        return [line.rstrip() for line in console.export_text().splitlines()]

    return run


def runs_of(scores: Sequence[float | None] = (), **arguments: Any) -> list[Run]:
    """Runs of a sweep that has not started, with scores as if some were done."""
    runs = Board(planned(RTE, **arguments), None, Path("out")).runs()
    done = {"status": Status.DONE, "metric": "accuracy", "seconds": 61.0, "step": 100}
    finished = [
        run if score is None else replace(run, score=score, **done)
        for run, score in zip(runs, scores, strict=False)
    ]
    return finished + runs[len(finished) :]


def test_settings_are_columns_only_where_there_is_room(printed: Any) -> None:
    runs = runs_of(grid=GRID, seeds=2)
    counts = {run.cell.name: 25_344 for run in runs}
    for width, header in (
        (120, ["run", "targets", "kernel_size", "seed", "adapter", "state"]),
        (70, ["run", "adapter", "state"]),
    ):
        lines = printed(width, sweeps.show_cells, runs, counts, [])
        assert lines[0].split() == header
        assert max(map(len, lines)) <= width
        assert [line.split()[0] for line in lines[1:9]] == [run.cell.name for run in runs]
        assert all("25,344" in line and line.endswith("to do") for line in lines[1:9])
        assert lines[-1] == "8 runs: 8 to do. Folder: out"


def test_the_best_setting_comes_first(printed: Any) -> None:
    arguments = {"grid": ["adapter.kernel_size=2,4,8"], "seeds": 2}
    runs = runs_of([0.5, 0.6, 0.9, 0.7, 0.95], **arguments)  # one good seed is not the best
    runs[-1] = replace(runs[-1], status=Status.FAILED, message="Training diverged.\nLower it.")
    lines = printed(80, sweeps.show_results, planned(RTE, **arguments), runs)
    lines = lines[lines.index("") + 1 :]
    assert [line.split() for line in lines[:4]] == [
        ["setting", "accuracy", "std", "n", "time", "runs"],
        ["kernel4", "0.8000", "0.1414", "2", "0:01:01", "2", "done"],
        ["kernel2", "0.5500", "0.0707", "2", "0:01:01", "2", "done"],
        ["kernel8", "0.9500", "1", "0:01:01", "1", "done,", "1", "failed"],
    ]
    assert "kernel8-seed7 failed: Training diverged." in lines
    assert lines[-2:] == [
        "Best: kernel4",
        "  dcft train recipes/rte.yaml adapter.kernel_size=4 training.seed=6",
    ]


def test_a_run_without_its_folder_is_named(
    printed: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = {"grid": ["adapter.kernel_size=2,4"]}
    runs = [replace(run, folder=tmp_path / run.name) for run in runs_of([0.5, 0.6], **arguments)]
    runs[0].folder.mkdir()
    printed(80, sweeps.show_results, planned(RTE, **arguments), runs)
    note = capfd.readouterr().err
    assert f"gone from {tmp_path}: kernel4. Their" in note


def test_different_metrics_have_no_best(printed: Any) -> None:
    arguments = {"grid": ["task.name=rte,cola"]}
    runs = runs_of([0.5, 0.9], **arguments)
    runs[1] = replace(runs[1], metric="matthews_correlation")
    lines = printed(80, sweeps.show_results, planned(RTE, **arguments), runs)
    assert [line.split()[:3] for line in lines if line][:3] == [
        ["setting", "metric", "mean"],
        ["rte", "accuracy", "0.5000"],
        ["cola", "matthews_correlation", "0.9000"],
    ]
    assert not any("Best" in line for line in lines)


def test_a_line_for_each_run(printed: Any) -> None:
    first, second = runs_of(seeds=2)
    view = sweeps.LineView()

    def events() -> None:
        view.started(first, 0, 2)
        for run in (first, second):
            view.ended(replace(run, status=Status.DONE, metric="accuracy", score=0.5), 1, 2)
        view.ended(replace(second, status=Status.FAILED, message="This\nand that."), 2, 2)
        view.ended(replace(second, status=Status.PRUNED, metric="f1", score=0.1, step=3), 2, 2)

    assert printed(80, events) == [
        "   started  rte-seed6  (0 of 2 done)",
        "    1 of 2  rte-seed6  accuracy 0.5000",
        "    1 of 2  rte-seed7  accuracy 0.5000",
        "    2 of 2  rte-seed7  failed: This",
        "    2 of 2  rte-seed7  pruned at step 3: f1 0.1000",
    ]
