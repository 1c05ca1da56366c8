"""The Python on the pages runs, and reads what the package writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dcft_cli import adapter_layers, load_adapter
from tests.families import save_base, tiny_model
from tests.test_docs import FORMAT, PREDICTION, PYTHON, README, blocks


@pytest.fixture(scope="module")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"), "deberta-v2")


def run(block: str, base: Path, **names: Any) -> dict[str, Any]:
    """Executes an example with a tiny model instead of the one it names."""
    exec(block.replace("microsoft/deberta-v3-base", str(base)), names)
    return names


def test_the_python_examples_run(
    small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(PYTHON, "python"):
        names = run(block, small_base, **names)
    (block,) = blocks(README, "python")
    run(block, small_base)
    # The format's example reads the file that the others wrote.
    (block,) = blocks(FORMAT, "python")
    names = run(block, small_base)
    path = tmp_path / "adapter.safetensors"
    layers = adapter_layers(load_adapter(tiny_model("deberta-v2"), path, check_base=False))
    description, tensors = names["description"], names["tensors"]
    assert [module["name"] for module in description["modules"]] == list(layers)
    for module in description["modules"]:
        found = names["increment"](description, tensors, module)
        wanted = layers[module["name"]].delta_weight().detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-12)


def test_the_prediction_examples_run(run_of: Callable[[str], Path]) -> None:
    (block,) = blocks(PREDICTION, "python")
    names: dict[str, Any] = {}
    exec(block.replace("runs/tickets", str(run_of("sst2"))), names)
    assert names["found"]["prediction"] in names["predictor"].labels
