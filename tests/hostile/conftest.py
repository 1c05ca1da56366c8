"""A finished run on the tiny base, and its command lines."""

import pytest

from tests.cli.conftest import run_cli  # noqa: F401 (a fixture)
from tests.jobs import recipe, train


@pytest.fixture(scope="session")
def finished(base, tmp_path_factory):
    """A run folder that evaluates and resumes by command line."""
    root = tmp_path_factory.mktemp("hostile")
    train(recipe("mrpc", root, base, "training.max_steps=4", "training.eval_steps=2"), root / "run")
    return root / "run"
