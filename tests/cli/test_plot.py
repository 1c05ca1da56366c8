"""Plots of runs, in files and in the terminal."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dcft_cli.runs.curves import read_curves
from tests.cli.conftest import Output
from tests.jobs import Job, recipe, train


@pytest.fixture(scope="module")
def job(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    return train(recipe("sst2", folder, base), folder / "opinions")


def test_curves_are_those_of_the_log(job: Job) -> None:
    found = read_curves(str(job.folder))
    assert (found.name, found.metric) == ("opinions", "accuracy")
    assert [step for step, _ in found.loss] == [1, 2, 3, 4, 5, 6]
    assert found.loss[-1][1] == job.metrics["train_loss"]
    assert dict(found.score)[6] == job.metrics["last_metrics"]["accuracy"]
    assert found.baselines["constant"] == job.metrics["baselines"]["constant"]["accuracy"]


def test_delta_norms_are_those_of_the_adapter(job: Job) -> None:
    found = read_curves(str(job.folder)).delta_norms
    assert found.keys() == {"Q", "K", "V", "O", "FFN_IN", "FFN_OUT"}
    assert [layer for layer, _ in found["Q"]] == [0, 1]
    layer = job.layers[0]
    assert found["Q"][0][1] == pytest.approx(layer.delta_weight().norm().item(), rel=1e-5)


@pytest.mark.parametrize("ending", ["png", "svg", "html"])
def test_files(job: Job, tmp_path: Path, run_cli: Callable[..., Output], ending: str) -> None:
    file = tmp_path / f"curves.{ending}"
    done = run_cli("plot", str(job.folder), str(job.folder), "--output", str(file))
    assert (done.code, done.out, done.err) == (0, f"{file}\n", "")
    content = file.read_bytes()
    start = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!doctype html>"}[ending]
    assert content.startswith(start)
    assert b"src=" not in content  # nothing is loaded from elsewhere
    run_cli("plot", str(job.folder), str(job.folder), "--output", str(file))
    assert file.read_bytes() == content


def test_in_the_terminal(job: Job, run_cli: Callable[..., Output]) -> None:
    done = run_cli("plot", str(job.folder))
    assert (done.code, done.err) == (0, "")
    for title in ("training loss by step", "score by step", "|dW| of opinions by layer", "FFN_IN"):
        assert title in done.out
    assert max(map(len, done.out.splitlines())) <= 100


def test_a_run_that_is_not_finished_shows_what_it_has(job: Job, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text((job.folder / "log.jsonl").read_text())
    found = read_curves(str(tmp_path))
    assert found.metric == "accuracy"
    assert found.delta_norms == {}


def test_mistakes(job: Job, tmp_path: Path, error_of: Callable[..., str]) -> None:
    assert "has no log.jsonl" in error_of("plot", str(tmp_path))
    assert ".png, .svg, .html" in error_of("plot", str(job.folder), "--output", "curves.bmp")
