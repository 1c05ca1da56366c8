"""A validation set, encoded, with the functions that score a model's predictions on it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class EvaluationSet:
    """One validation set.

    Predictions are logits: (N, classes); for token classification (N, longest input, classes);
    for question answering a pair of start and end logits, each (N, longest input). Along the
    inputs they are padded on the right with any finite number.

    Attributes:
        name: of the set; empty if it is the only one.
        features: the model's inputs, `labels` where the model takes them, and `length` (in
            tokens); longest first, so that batches need little padding and the largest batch
            comes first.
        score: (predictions, label ids), numpy arrays in the order of `features`, to finite scores
            by metric. Raises TrainingError for predictions that are not finite.
        constant_scores: the logits of the training rows' prior to the scores of predicting it for
            every row; no scores if there is no such prediction.
        report: predictions to where they fail, as plain data (tasks/report.py); None if there is
            nothing to report.
        choose: chooses, for the rows with these predictions, how logits become predictions in
            `score` and `report`, where the recipe asks for it.
        failure: predictions to a sign that nothing was learned, such as "every row is predicted
            positive"; empty if there is none.
    """

    name: str
    features: "Dataset"
    score: Callable[[Any, Any], dict[str, float]]
    constant_scores: Callable[[Any], dict[str, float]]
    report: Callable[[Any], dict[str, Any] | None] = lambda predictions: None
    choose: Callable[[Any], None] = lambda predictions: None
    failure: Callable[[Any], str] = lambda predictions: ""

    @property
    def title(self) -> str:
        """The set's name in results."""
        return self.name or "validation"

    @property
    def prefix(self) -> str:
        """Prefix of the set's metrics where the scores of several sets are put together."""
        return f"{self.name}_" if self.name else ""
