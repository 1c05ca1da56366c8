"""`dcft report`, on real runs."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import RunCli, shell
from tests.jobs import Job, recipe, train


@pytest.fixture(scope="module")
def jobs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """Two kernel sizes with two seeds each."""
    folder = tmp_path_factory.mktemp("jobs")
    return {
        f"d{kernel}-{seed}": train(
            recipe(
                "sst2", folder, base, f"adapter.kernel_size={kernel}", f"training.seed={seed}",
                "training.fit_head=auto",
            ),
            folder / "runs" / f"d{kernel}-{seed}",
        )
        for kernel in (4, 8)
        for seed in (1, 2)
    }  # fmt: skip


@pytest.fixture(scope="module")
def runs(jobs: dict[str, Job]) -> Path:
    return jobs["d4-1"].folder.parent


def test_json_has_the_numbers_of_the_runs(
    runs: Path, jobs: dict[str, Job], base: Path, run_cli: RunCli
) -> None:
    done = run_cli("report", str(runs), "--json")
    assert (done.code, done.err) == (0, "")
    (table,) = json.loads(done.out)["tables"]
    assert table["title"] == f"sst2 (sst2-train.jsonl, scored on 12 rows), {base.name}"
    assert [group["name"] for group in table["groups"]] == [
        "dcft kernel_size=4", "dcft kernel_size=8",
    ]  # fmt: skip
    for group, kernel in zip(table["groups"], (4, 8), strict=True):
        metrics = [jobs[f"d{kernel}-{seed}"].metrics for seed in (1, 2)]
        assert group["best_scores"] == [m["metrics"]["accuracy"] for m in metrics]
        assert group["last_scores"] == [m["last_metrics"]["accuracy"] for m in metrics]
        assert group["adapter"]["mean"] == metrics[0]["adapter_parameters"]
        file = runs / f"d{kernel}-1" / "adapter.safetensors"
        assert group["stored"]["mean"] == pytest.approx(file.stat().st_size, abs=16)
        assert group["not_comparable"] == f"{base.name} is not a base model of the paper"
    assert table["baselines"].keys() == {"constant", "fitted head"}


def test_as_a_user_types_it(runs: Path) -> None:
    done = shell(*"report runs --html r.html --csv r.csv --markdown r.md".split(), cwd=runs.parent)
    assert (done.code, done.out, done.err) == (0, "r.html\nr.md\nr.csv\n", "")
    page = (runs.parent / "r.html").read_text("utf-8")
    assert page.count("<svg ") == 3
    assert "dcft train runs/d4-1/recipe.yaml --output runs/d4-1-again" in page
    with (runs.parent / "r.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == [
            "dcft kernel_size=4", "dcft kernel_size=8", "constant", "fitted head",
        ]  # fmt: skip
    assert "| dcft kernel_size=8 | 2 |" in (runs.parent / "r.md").read_text("utf-8")


def test_in_the_terminal(runs: Path, base: Path, run_cli: RunCli) -> None:
    done = run_cli("report", str(runs), "--reference", "dcft kernel_size=8")
    assert (done.code, done.err) == (0, "")
    title, heads, *lines = done.out.splitlines()
    assert title == f"sst2 (sst2-train.jsonl, scored on 12 rows), {base.name}: accuracy"
    assert heads.startswith("method") and "difference (last)" in heads
    named = {line[:18].rstrip(): line for line in lines}
    assert " reference " in named["dcft kernel_size=8"]
    assert "[" in named["dcft kernel_size=4"]
    assert named["constant"] and named["fitted head"]


def test_a_repeated_train_command_of_the_page_runs(runs: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    source = runs / "d4-1" / "recipe.yaml"
    assert shell("train", str(source), "--output", str(again), cwd=tmp_path).code == 0
    metrics = [json.loads((f / "metrics.json").read_text()) for f in (runs / "d4-1", again)]
    assert metrics[0]["metrics"] == metrics[1]["metrics"]


def test_unfinished_and_repeated_runs_are_named(
    runs: Path, base: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    shutil.copytree(runs / "d4-1", tmp_path / "a")
    shutil.copytree(runs / "d4-1", tmp_path / "b")
    shutil.copytree(runs / "d4-2", tmp_path / "c")
    (tmp_path / "c" / "metrics.json").unlink()
    done = run_cli("report", str(tmp_path))
    assert done.code == 0
    assert f"not counted: {tmp_path}/c: not finished" in done.err
    assert "same settings and seed as" in done.err
    line = f"Published numbers: not comparable, {base.name} is not a base model of the paper."
    assert line in done.out.splitlines()


def test_mistakes(runs: Path, tmp_path: Path, error_of: Callable[..., str]) -> None:
    assert "has no run" in error_of("report", str(tmp_path))
    assert "is not a folder" in error_of("report", str(tmp_path / "nowhere"))
    message = error_of("report", str(runs), "--reference", "dcft kernel_size=5")
    assert "Did you mean dcft kernel_size=" in message
