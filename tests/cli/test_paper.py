"""Every experiment of the paper is a sweep that can be planned from configurations only."""

import json
from pathlib import Path

import pytest

from dcft_cli.recipe import load_recipe
from tests.cli.conftest import RunCli

PAPER = Path(__file__).parents[2] / "recipes" / "paper"
FILES = sorted(path.relative_to(PAPER).as_posix() for path in PAPER.rglob("*.yaml"))
EXPERIMENTS = {"figure2", "figure3", *(f"table{number}" for number in range(1, 7))}


def test_every_experiment_has_files() -> None:
    assert {file.partition("/")[0] for file in FILES} == EXPERIMENTS


@pytest.mark.parametrize("file", FILES)
def test_a_dry_run_accepts_it(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: RunCli
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_cli("sweep", str(PAPER / file), "--dry-run", "--json")
    assert done.code == 0, done.err
    runs = json.loads(done.out)["runs"]
    section = load_recipe(str(PAPER / file)).recipe.sweep
    assert section is not None
    assert [run["name"] for run in runs] == list(section.variants)
    assert {run["status"] for run in runs} == {"to do"}
    assert not list(tmp_path.iterdir())
