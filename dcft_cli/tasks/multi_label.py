"""Multi-label classification: any number of labels, or none, for one text or a pair."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, List, Value
from numpy.typing import NDArray

from dcft_cli.data.labels import find_names, label_name, read_numbers
from dcft_cli.data.rows import Rows, shown
from dcft_cli.errors import DataError
from dcft_cli.tasks.base import RowSet, class_settings
from dcft_cli.tasks.metrics import finite
from dcft_cli.tasks.multi_label_scores import METRICS_OF_MULTI_LABEL, score_label_sets
from dcft_cli.tasks.prior import Prior, prior_of_labels
from dcft_cli.tasks.text import TextTask

if TYPE_CHECKING:
    from torch import Tensor

_YES_OR_NO = {"1": 1.0, "true": 1.0, "0": 0.0, "false": 0.0}
_OTHER_SEPARATORS = "|;,"
_LIST_HINT = (
    'A row lists its labels, such as ["sports", "news"], and [] if it has none. In csv and tsv'
    " files data.separator parts them; columns of 0 and 1, one a label, go into"
    ' data.label="[COLUMN, COLUMN]".'
)


class MultiLabel(TextTask):
    """Predicts which of `labels` a text has; the model is trained on the binary cross-entropy.

    Args:
        labels: names in the order of their numbers.
        text: name of the text column, or of the two.
        columns: the column that lists each row's labels; several hold 0 and 1, one a label.
        separator: what parts the labels where the list is a text.
        threshold: probability from which on a label is given.
        max_length: longest input in tokens.
    """

    kind = "multi_label"
    label_feature = List(Value("float32"))

    def __init__(
        self,
        labels: Sequence[str],
        text: Sequence[str],
        columns: Sequence[str],
        separator: str,
        threshold: float,
        max_length: int,
    ) -> None:
        super().__init__(text, METRICS_OF_MULTI_LABEL, max_length)
        self.labels = tuple(labels)
        self.columns = tuple(columns)
        self.separator = separator
        self.threshold = threshold

    @property
    def model_settings(self) -> Mapping[str, Any]:
        """See `Task.model_settings`."""
        return {**class_settings(self.labels), "problem_type": "multi_label_classification"}

    def read_labels(self, rows: Rows) -> list[list[float]]:
        """See `TextTask.read_labels`: 1 for a label that the row has, else 0, (labels,)."""
        if len(self.columns) > 1:
            by_label = [_yes_or_no(rows, column) for column in self.labels]
            return [list(row) for row in zip(*by_label, strict=True)]
        (column,) = self.columns
        values = _listed(rows, column, self.separator)
        numbers = read_numbers(
            rows, column, values, self.labels, lambda _, value: f"`{column}` holds {shown(value)}"
        )
        return [[float(label in row) for label in range(len(self.labels))] for row in numbers]

    def label_counts(self, dataset: Dataset) -> Counter[int]:
        """See `Task.label_counts`."""
        counts = np.sum(dataset["label"][:], axis=0)
        return Counter({label: int(count) for label, count in enumerate(counts)})

    def check_training(self, rows: RowSet) -> None:
        """See `Task.check_training`."""
        if len(set(map(tuple, rows.dataset["label"][:]))) == 1:
            raise DataError(
                f"{rows.origin}: every row has the same labels.",
                "A classifier learns from rows that differ.",
            )

    def prior(self, dataset: Dataset) -> Prior:
        """See `Task.prior`."""
        return prior_of_labels(np.sum(dataset["label"][:], axis=0), len(dataset))

    def linear_loss(self, logits: "Tensor", targets: Mapping[str, "Tensor"]) -> "Tensor":
        """See `Task.linear_loss`."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(logits, targets["labels"])

    def failure(self, logits: NDArray[Any], labels: NDArray[Any]) -> str:
        """See `TextTask.failure`."""
        given = self.predicted(logits)
        if (given != given[0]).any() or (labels == labels[0]).all():
            return ""
        names = [name for name, is_given in zip(self.labels, given[0], strict=True) if is_given]
        return f"every row is given {', '.join(names) or 'no label'}"

    def predicted(self, logits: NDArray[Any]) -> NDArray[np.bool_]:
        """See `TextTask.predicted`."""
        given: NDArray[np.bool_] = logits >= math.log(self.threshold / (1 - self.threshold))
        return given

    def score(self, logits: NDArray[Any], label_ids: NDArray[Any]) -> dict[str, float]:
        """See `EvaluationSet.score`."""
        present = np.asarray(label_ids) > 0.5
        return score_label_sets(finite(logits), self.predicted(logits), present)


def find_label_sets(rows: Rows, column: str, separator: str) -> tuple[str, ...]:
    """The labels that the rows list in `column`, sorted as `find_names` sorts.

    Raises:
        DataError: no such column; a row that lists no labels; fewer than two different ones; texts
            that another separator seems to part.
    """
    values = _listed(rows, column, separator)
    names = find_names(
        rows, column, values, lambda _, value: f"`{column}` holds {shown(value)}", _LIST_HINT
    )
    texts = [value for value in rows.values(column, "data.label") if isinstance(value, str)]
    if texts and not any(separator in text for text in texts):
        for other in _OTHER_SEPARATORS:
            if count := sum(other in text for text in texts):
                raise DataError(
                    f"{rows.origin}: no row of `{column}` holds {shown(separator)}, which parts"
                    f" labels, but {count:,} of {len(texts):,} hold {shown(other)}.",
                    f'Set data.separator="{other}"; if it is part of the names, list them in'
                    " task.labels.",
                )
    if len(names) < 2:
        found = f"there is one label alone, {names[0]}" if names else "no row has a label"
        raise DataError(f"{rows.origin}: {found}.", "Multi-label classification needs two or more.")
    return names


def _listed(rows: Rows, column: str, separator: str) -> list[list[object]]:
    """The labels of each row as the data writes them."""
    listed: list[list[object]] = []
    problems: list[tuple[int, str]] = []
    for index, value in enumerate(rows.values(column, "data.label")):
        if isinstance(value, str):
            value = [part.strip() for part in value.split(separator)] if value.strip() else []
        if not isinstance(value, list):
            problem = "is missing" if value is None else f"is {shown(value)}, not a list"
            problems.append((index, f"`{column}` {problem}"))
            continue
        names = [label_name(label) for label in value]
        if twice := [
            label for label, name in zip(value, names, strict=True) if names.count(name) > 1
        ]:
            problems.append((index, f"`{column}` names {shown(twice[0])} twice"))
        listed.append(value)
    if problems:
        rows.refuse("no usable list of labels", problems, _LIST_HINT)
    return listed


def _yes_or_no(rows: Rows, column: str) -> list[float]:
    """A column of 0 and 1."""
    values = rows.values(column, "data.label")
    numbers = [_YES_OR_NO.get((label_name(value) or "").lower()) for value in values]
    problems = [
        (index, f"`{column}` is {shown(values[index])}")
        for index, number in enumerate(numbers)
        if number is None
    ]
    if problems:
        hint = "A column of one label holds 1 in the rows that have it, and 0 in the others."
        rows.refuse("label that is neither 0 nor 1", problems, hint)
    return [number for number in numbers if number is not None]
