"""What a training run tells whoever watches it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Attributes:
        step, total_steps: optimizer steps.
        epoch: passes over the training data so far, with its fraction.
        loss: mean since the last report, orthogonality term included; None before the first.
        learning_rate: in force; None before the first report.
        tokens_per_second: input tokens trained on (padding not counted), evaluations excluded.
        seconds_left: of training alone.
    """

    step: int
    total_steps: int
    epoch: float
    loss: float | None
    learning_rate: float | None
    tokens_per_second: float | None
    seconds_left: float | None


class Reporter(Protocol):
    """Receives what happens, in the order it happens."""

    def noted(self, text: str) -> None:
        """Something the user should know before training goes on."""

    def progress(self, progress: Progress) -> None:
        """An optimizer step is done."""

    def logged(self, progress: Progress) -> None:
        """The loss was measured anew (every `logging_steps`)."""

    def evaluating(self, done: int, total: int) -> None:
        """So many batches of the validation data are scored."""

    def baseline(self, name: str, scores: Scores) -> None:
        """What is reached without training: by a constant prediction, by the fitted head."""

    def evaluated(self, step: int, scores: Scores, best: bool) -> None:
        """The validation data was scored; `best`: better than all before, baselines included."""
