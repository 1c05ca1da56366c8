"""Regression: a number for one text or a pair."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, Value
from numpy.typing import NDArray

from dcft_cli.data.rows import Rows, shown
from dcft_cli.errors import DataError
from dcft_cli.tasks.base import RowSet
from dcft_cli.tasks.prior import Prior, prior_of_numbers
from dcft_cli.tasks.text import TextTask

if TYPE_CHECKING:
    from torch import Tensor

METRICS_OF_REGRESSION = ("pearson", "spearman", "mse")


class Regression(TextTask):
    """Predicts a number; the model has one output and is trained on the squared error.

    Args:
        text: name of the text column, or of the two.
        label: name of the label column.
        metrics: names in `METRICS`.
        max_length: longest input in tokens.
    """

    kind = "regression"
    label_feature = Value("float32")

    def __init__(
        self, text: Sequence[str], label: str, metrics: Sequence[str], max_length: int
    ) -> None:
        super().__init__(text, metrics, max_length)
        self.label = label

    @property
    def model_settings(self) -> Mapping[str, Any]:
        """See `Task.model_settings`."""
        return {"num_labels": 1, "problem_type": "regression"}

    def read_labels(self, rows: Rows) -> list[float]:
        """See `TextTask.read_labels`; a number may be written as a text."""
        values = rows.values(self.label, "data.label")
        numbers = [_number(value) for value in values]
        problems = [
            (index, f"`{self.label}` is {shown(value)}")
            for index, (value, number) in enumerate(zip(values, numbers, strict=True))
            if not math.isfinite(number)
        ]
        if problems:
            rows.refuse(
                "label that is not a (finite) number",
                problems,
                "To tell classes apart, set task.type=classification.",
            )
        return numbers

    def check_training(self, rows: RowSet) -> None:
        """See `Task.check_training`."""
        labels = set(rows.dataset["label"][:])
        if len(labels) == 1:
            raise DataError(f"{rows.origin}: every row has the same label, {labels.pop():g}.")

    def prior(self, dataset: Dataset) -> Prior:
        """See `Task.prior`."""
        return prior_of_numbers(np.asarray(dataset["label"][:], np.float64))

    def linear_loss(self, logits: "Tensor", targets: Mapping[str, "Tensor"]) -> "Tensor":
        """See `Task.linear_loss`."""
        from torch.nn.functional import mse_loss

        return mse_loss(logits.squeeze(-1), targets["labels"])

    def failure(self, logits: NDArray[Any], labels: NDArray[Any]) -> str:
        """See `TextTask.failure`: outputs that hardly differ, or lie beside the labels."""
        outputs, spread = self.predicted(logits), labels.std()
        if outputs.std() < 0.01 * spread:
            return f"every prediction is about {outputs.mean():.4g}"
        if abs(outputs.mean() - labels.mean()) > spread > 0:
            return (
                f"predictions are about {outputs.mean():.4g}, and labels {labels.mean():.4g} "
                f"(standard deviation {spread:.4g})"
            )
        return ""

    def predicted(self, logits: NDArray[Any]) -> NDArray[Any]:
        """See `TextTask.predicted`."""
        return logits.reshape(-1)


def _number(value: object) -> float:
    """The number a label stands for; NaN if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
