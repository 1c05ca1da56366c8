"""What every test shares: no network, one thread, and a tiny base model."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tiny matrices: a second thread costs more than it saves, most of all on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"
# Nothing of a test stays behind in the user's own folders.
os.environ["DCFT_CACHE"] = ""


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny pretrained BERT (no task head) and its tokenizer."""
    from tests.families import save_base

    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def run_of(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that trains a task, once, and returns its run folder."""
    from tests.prediction.runs import train_task

    root = tmp_path_factory.mktemp("runs")
    return lambda task: train_task(task, base, root)
