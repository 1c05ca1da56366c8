"""Outputs that cannot be written are refused before work starts, by every command."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs import Job, overrides, recipe, train

ErrorOf = Callable[..., str]
ADDRESSES = {"folder": "package://a_package/model", "file": "hub://me/file.csv"}


@pytest.fixture(scope="module")
def job(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    return train(recipe("rte", folder, base), folder / "run")


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("folder", "train {recipe} --output {address}"),
        ("folder", "train {recipe} --output {address} --dry-run"),
        ("folder", "train {recipe} training.output={address} --dry-run"),
        ("folder", "sweep {recipe} --seeds 2 --output {address} --dry-run"),
        ("folder", "merge a_base {run} {address}"),
        ("folder", "export {run} {address} --to peft"),
        ("file", "init {rows} --output {address}"),
        ("file", "recipes copy recipes/rte.yaml {address}"),
        ("file", "predict {run} {rows} --output {address}"),
        ("file", "eval {run} --predictions {address}"),
        ("file", "plot {run} --output {address}"),
        ("file", "report {run} --html {address}"),
        ("file", "report {run} --markdown {address}"),
        ("file", "report {run} --csv {address}"),
    ],
)
def test_an_address_is_no_output(
    error_of: ErrorOf,
    job: Job,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    arguments: str,
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    monkeypatch.chdir(tmp_path)
    places = {"run": job.folder, "recipe": job.folder / "recipe.yaml", "rows": "rows.csv"}
    address = ADDRESSES[what]
    output = error_of(*arguments.format(**places, address=address).split())
    assert f"{address} is an address, not a {what} to write." in output
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_a_base_in_the_place_of_the_output_of_a_merge(error_of: ErrorOf, job: Job) -> None:
    output = error_of("merge", str(job.folder), "package://a_package/model")
    assert "is an address, not a folder to write; the order is [BASE] ADAPTER OUT." in output
    assert f"dcft merge package://a_package/model {job.folder} OUT" in output


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_a_folder_that_cannot_be_created(
    error_of: ErrorOf, job: Job, base: Path, tmp_path: Path
) -> None:
    command = ["train", "recipes/rte.yaml", *overrides("rte", tmp_path, base)]
    for arguments in (
        [*command, "--output", "/proc/x"],
        [*command, "--output", "/proc/x", "--dry-run"],
        ["merge", str(job.folder), "/proc/x"],
    ):
        assert "Error: /proc/x cannot be created in /proc.\n" in error_of(*arguments)
