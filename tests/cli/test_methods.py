"""Every method as it is typed: trained, scored, inspected and used to predict."""

import json
from pathlib import Path

import pytest

from dcft_cli.adapter_file.read import read_contents
from dcft_cli.recipe.methods import METHODS
from tests.cli.conftest import RunCli
from tests.families import save_base
from tests.jobs import overrides
from tests.methods.small import small
from tests.samples import rows_of, write_rows

ROWS = [{k: v for k, v in row.items() if k != "label"} for row in rows_of("rte", 5, seed=3)]


@pytest.fixture(scope="module", params=["bert", "deberta-v2", "roberta"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"), request.param, initializer_range=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_a_file_gives_the_scores_of_its_run(
    method: str, base: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    run = str(tmp_path / "run")
    settings = [*overrides("rte", tmp_path, base), f"adapter={small(method)}"]
    trained = run_cli("train", "recipes/rte.yaml", *settings, "--output", run)
    assert trained.code == 0, trained.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))
    assert metrics["method"] == metrics["settings"]["adapter"]["method"] == method
    contents = read_contents(tmp_path / "run" / "adapter.safetensors")
    assert (contents.method, contents.adapter_parameters) == (method, metrics["adapter_parameters"])
    scored = json.loads(run_cli("eval", run, "--json").out)
    assert scored["metrics"] == pytest.approx(metrics["metrics"], abs=1e-6)
    found = json.loads(run_cli("inspect", run, "--json").out)
    assert (found["method"], found["adapter_parameters"]) == (method, contents.adapter_parameters)
    planned = json.loads(run_cli("inspect", "recipes/rte.yaml", *settings, "--json").out)
    assert planned["adapter_parameters"] == contents.adapter_parameters
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    predicted = run_cli("predict", run, str(rows))
    assert len(predicted.out.splitlines()) == 5, predicted.err
