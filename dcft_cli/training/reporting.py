"""The interface through which a run reports its progress."""

from collections.abc import Mapping
from dataclasses import dataclass

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Progress:
    """The state of a training run.

    Attributes:
        epoch: passes over the training data so far, with the fraction.
        loss: mean since the last report, orthogonality term included; None before the first.
        tokens_per_second: input tokens trained on, without padding; evaluations excluded.
        seconds_left: of training, evaluations excluded.
    """

    step: int
    total_steps: int
    epoch: float
    loss: float | None
    learning_rate: float | None
    tokens_per_second: float | None
    seconds_left: float | None


class Reporter:
    """Receives events in the order they happen; ignores those that a subclass does not handle."""

    def noted(self, text: str) -> None:
        """Show a note to the user."""

    def progress(self, progress: Progress) -> None:
        """Show that an optimizer step is done."""

    def logged(self, progress: Progress) -> None:
        """Show a new loss (every `logging_steps`, and before each evaluation)."""

    def evaluating(self, done: int, total: int) -> None:
        """Show that `done` of `total` batches of the validation data are scored."""

    def baseline(self, name: str, scores: Scores) -> None:
        """Show scores reached without training, by a constant prediction or the fitted head."""

    def evaluated(self, step: int, scores: Scores, best: bool, unbeaten: str) -> None:
        """Show scores.

        Args:
            best: better than all earlier ones, so that this checkpoint is kept as the best.
            unbeaten: how the main score compares with the best baseline, such as "< fitted head";
                empty if it is better than all of them.
        """
