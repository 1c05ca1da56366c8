"""Stop a run whose files somebody removes: without them, it would be trained in vain."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from dcft_cli.errors import TrainingError
from dcft_cli.runs.folder import RunFolder


class Presence(TrainerCallback):
    """Check, before it is written to, that the run folder and the best checkpoint are there.

    The Trainer would create the folder again, and miss the best checkpoint at the end.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Check, if the log or a checkpoint is due.

        Raises:
            TrainingError: something is not there.
        """
        if not (state.is_world_process_zero and (control.should_log or control.should_save)):
            return
        best = state.best_model_checkpoint
        for path in (self._folder.recipe, *([Path(best)] if best else [])):
            if not path.exists():
                raise TrainingError(
                    f"{path} was removed while the run wrote there. It is stopped at step "
                    f"{state.global_step} of {state.max_steps}.",
                    "Put it back and continue with --resume, or start again with --overwrite.",
                )
