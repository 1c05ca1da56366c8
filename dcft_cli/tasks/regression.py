"""Regression: a number for a text or a pair of texts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset, Value
from numpy.typing import NDArray

from dcft_cli.data.columns import finite_number
from dcft_cli.data.prediction_set import Prediction, shortened
from dcft_cli.data.rows import FIX, Rows, RowSet, format_value, is_blank
from dcft_cli.errors import DataError
from dcft_cli.tasks.base import Tensor
from dcft_cli.tasks.prior import Prior, prior_of_numbers
from dcft_cli.tasks.text import TextTask

_LARGEST = 1e9  # the norm of the first gradient is finite in float32
_LARGEST_ROUNDING = 0.01  # share of the labels' standard deviation


class Regression(TextTask):
    """Predict a number; the model has one output and is trained on the squared error."""

    kind = "regression"
    problem_type = "regression"
    has_classes = False
    label_feature = Value("float32")
    metrics = ("pearson", "spearman", "mse")
    predicted_columns = ("prediction",)

    @property
    def model_settings(self) -> dict[str, Any]:
        """See `Task.model_settings`."""
        return super().model_settings | {"num_labels": 1}

    def read_labels(self, rows: Rows) -> list[float]:
        """See `TextTask.read_labels`; a number may be written as a text."""
        column = self.label[0]
        values = rows.values(column, "data.label")
        rows.check(column, values, _missing, "missing label", FIX)
        what = "label that is not a (finite) number"
        hint = "To predict classes, set task.type=classification."
        rows.check(column, values, _no_number, what, hint)
        what = "label too large for float32"
        hint = f"Divide the labels by a constant: at most {_LARGEST:g}."
        rows.check(column, values, _too_large, what, hint)
        numbers = [finite_number(value) or 0.0 for value in values]
        labels = np.clip(numbers, -_LARGEST, _LARGEST)  # larger ones are reported
        rounding = labels.astype(np.float32) - labels
        if rounding.std() > _LARGEST_ROUNDING * labels.std():
            raise DataError(
                f"{rows.source}: the labels, {labels.min():.10g} to {labels.max():.10g}, differ by "
                "too little for their size: float32 would round the differences away.",
                "Subtract a constant from all labels.",
            )
        return numbers

    def check_training(self, rows: RowSet) -> None:
        """See `Task.check_training`."""
        labels = set(rows.dataset["label"][:])
        if len(labels) == 1:
            raise DataError(
                f"{rows.source}: every label is {labels.pop():g}.",
                "At least two different labels are needed.",
            )

    def prior(self, dataset: Dataset, *, weighted: bool = True) -> Prior:
        """See `Task.prior`."""
        return prior_of_numbers(np.asarray(dataset["label"][:], np.float64))

    def linear_loss(self, logits: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """See `Task.linear_loss`."""
        from torch.nn.functional import mse_loss

        return mse_loss(logits.squeeze(-1), targets["labels"])

    def failure(self, logits: NDArray[Any], labels: NDArray[Any]) -> str:
        """See `TextTask.failure`: outputs that hardly differ, or are far from the labels."""
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

    def predictions(self, logits: NDArray[Any]) -> list[Prediction]:
        """See `TextTask.predictions`."""
        return [{"prediction": shortened(value)} for value in self.predicted(logits).tolist()]

    def describe_target(self, target: float) -> float:
        """See `Task.describe_target`."""
        return shortened(target)


def _missing(value: object) -> str:
    return f"is {format_value(value)}" if is_blank(value) else ""


def _no_number(value: object) -> str:
    is_number = finite_number(value) is not None
    return "" if is_number or is_blank(value) else f"is {format_value(value)}"


def _too_large(value: object) -> str:
    return f"is {format_value(value)}" if abs(finite_number(value) or 0) > _LARGEST else ""
