"""Files of a run that are removed while it writes there."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from dcft_cli.errors import TrainingError
from tests.jobs import recipe, train


class Remove(TrainerCallback):
    """Remove a folder after a step."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            shutil.rmtree(self.path)


@pytest.mark.parametrize("logging", [1, 100], ids=["log due", "checkpoint due"])
@pytest.mark.parametrize(
    ("removed", "named"), [("", "recipe.yaml"), ("checkpoints", "checkpoints/checkpoint-")]
)
def test_the_run_stops_and_says_what_is_missing(
    base: Path, tmp_path: Path, logging: int, removed: str, named: str
) -> None:
    run = tmp_path / "run"
    loaded = recipe("mrpc", tmp_path, base, f"training.logging_steps={logging}")
    with pytest.raises(TrainingError, match="was removed while the run wrote there") as caught:
        train(loaded, run, callbacks=[Remove(run / removed, step=4)])
    assert str(run / named) in caught.value.message
    assert f"at step {5 if logging == 1 else 6} of 6" in caught.value.message
    assert "--overwrite" in caught.value.hint
    assert not (run / "adapter.safetensors").exists()
