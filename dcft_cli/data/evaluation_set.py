"""A validation set, encoded, with the functions that score a model's predictions on it."""

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dcft_cli.errors import RecipeError

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

    def add_to(self, scores: dict[str, float], found: Mapping[str, float]) -> None:
        """Add scores of this set to those of all sets, under the names that they have there.

        Raises:
            RecipeError: another set has a score of one of these names.
        """
        named = {f"{self.prefix}{name}": value for name, value in found.items()}
        if twice := scores.keys() & named.keys():
            raise RecipeError(
                f"data.validation: two sets would have a score named {min(twice)}.",
                f"Give the set {self.name} another name.",
            )
        scores |= named

    def same_for_equal_inputs(self, predictions: Any) -> Any:
        """Return predictions in which rows with the same inputs have those of the first of them.

        A row's logits depend on the padding of its batch in the last bits. That breaks the ties of
        repeated texts, at random, and scores that rank rows would depend on the batch size.
        """
        if isinstance(predictions, tuple):
            return tuple(part[self._first_equal] for part in predictions)
        return predictions[self._first_equal]

    @cached_property
    def _first_equal(self) -> NDArray[np.int64]:
        """The first row with the same inputs, for each row."""
        inputs = [c for c in ("input_ids", "token_type_ids") if c in self.features.column_names]
        first: dict[bytes, int] = {}
        rows: list[int] = []
        for batch in self.features.select_columns(inputs).iter(1000):
            for values in zip(*(batch[name] for name in inputs), strict=True):
                key = b"".join(array("i", column).tobytes() for column in values)
                rows.append(first.setdefault(key, len(rows)))
        return np.array(rows, dtype=np.int64)
