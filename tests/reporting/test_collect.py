"""Runs are found at any depth; what is unfinished or damaged is listed."""

import json
from pathlib import Path

import pytest

from dcft_cli.errors import RunError
from dcft_cli.reporting.collect import collect
from tests.reporting.runs import write_run


def reasons(root: Path) -> dict[str, str]:
    _, excluded = collect([str(root)])
    return {run.folder.name: run.reason for run in excluded}


def test_a_run_is_read(tmp_path: Path) -> None:
    scores = [(3, 0.8), (6, 0.7)]
    write_run(tmp_path / "a", best=0.8, last=0.7, seed=3, scores=scores)
    (run,), excluded = collect([str(tmp_path)])
    assert excluded == []
    assert (run.method, run.metric, run.best, run.last) == ("dcft", "accuracy", 0.8, 0.7)
    assert list(run.scores) == scores
    assert run.baselines == {"constant": 0.5, "fitted_head": 0.6}
    assert run.stored_bytes == 1234


def test_folders_are_searched_and_a_run_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "sweep" / "deep" / "a")
    write_run(tmp_path / "b")
    write_run(tmp_path / "b" / "checkpoints" / "checkpoint-3")
    write_run(tmp_path / ".trash" / "c")
    (tmp_path / "recipe.yaml").write_text("a recipe, and no run")
    runs, excluded = collect([str(tmp_path), str(tmp_path / "b"), str(tmp_path / "sweep" / "..")])
    assert sorted(run.folder.name for run in runs) == ["a", "b"]
    assert excluded == []


def test_unfinished_and_damaged_runs_are_listed(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    (write_run(tmp_path / "stopped") / "metrics.json").unlink()
    (write_run(tmp_path / "no-recipe") / "recipe.yaml").unlink()
    (write_run(tmp_path / "cut") / "metrics.json").write_text('{"task": "s')
    (write_run(tmp_path / "log") / "log.jsonl").write_text("nothing\n")
    (write_run(tmp_path / "list") / "metrics.json").write_text("[]")
    (write_run(tmp_path / "recipe") / "recipe.yaml").write_text("model: {name: x, nmae: y}")
    of_seed_1 = (tmp_path / "good" / "metrics.json").read_text()
    (write_run(tmp_path / "seed", seed=2) / "metrics.json").write_text(of_seed_1)
    write_run(tmp_path / "nan", best=float("nan"))
    write_run(tmp_path / "unscored", metrics={}, last_metrics={})
    write_run(tmp_path / "continued", scores=[(6, 0.5), (9, 0.6)])
    found = reasons(tmp_path)
    assert found.keys() == {path.name for path in tmp_path.iterdir()} - {"good"}
    assert found["stopped"] == "not finished: the last step in its log is 6"
    assert found["no-recipe"] == "has no recipe.yaml"
    assert found["cut"].startswith("damaged: metrics.json, the file: Invalid JSON")
    assert found["log"].startswith("damaged: a file cannot be read")
    assert found["list"].startswith("damaged: metrics.json, the file: Input should be an object")
    assert found["recipe"].startswith("its recipe does not fit: ")
    assert found["seed"] == "damaged: metrics.json and recipe.yaml have different seeds"
    assert found["nan"] == "damaged: accuracy is not a number"
    assert found["unscored"] == "has no scores: it was trained without validation rows"
    assert found["continued"] == "not finished: it was continued after metrics.json was written"


@pytest.mark.parametrize("missing", ["seconds", "last_metrics", "main_metric"])
def test_missing_entries_are_named(tmp_path: Path, missing: str) -> None:
    write_run(tmp_path / "good")
    metrics = write_run(tmp_path / "old") / "metrics.json"
    content = json.loads(metrics.read_text())
    del content[missing]
    metrics.write_text(json.dumps(content))
    assert reasons(tmp_path) == {"old": f"damaged: metrics.json, {missing}: Field required"}


def test_nothing_to_count_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no run"):
        collect([str(tmp_path)])
    with pytest.raises(RunError, match="is not a folder"):
        collect([str(tmp_path / "nowhere")])
    (write_run(tmp_path / "a") / "metrics.json").unlink()
    with pytest.raises(RunError, match="a: not finished"):
        collect([str(tmp_path)])
