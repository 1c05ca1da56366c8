"""What classification and regression share: one text or a pair in, one label out."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from datasets import Dataset, Features, Value
from numpy.typing import NDArray

from dcft_cli.tasks.base import EvaluationSet, Task, longest_first
from dcft_cli.tasks.metrics import METRICS, finite
from dcft_cli.tasks.quiet import quiet
from dcft_cli.tasks.rows import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TextTask(Task):
    """A label for one text or a pair of texts.

    Prepared rows have the columns `text`, for a pair `text_pair`, and `label`.

    Args:
        text: name of the text column, or of the two.
        label: name of the label column.
        metrics: names in `METRICS`.
        max_length: longest input in tokens; of a pair the longer text is cut first.
    """

    auto_class = "AutoModelForSequenceClassification"
    group_column = "text"
    label_type: ClassVar[str]

    def __init__(
        self, text: Sequence[str], label: str, metrics: Sequence[str], max_length: int
    ) -> None:
        self.text = tuple(text)
        self.label = label
        self.metrics = tuple(metrics)
        self.max_length = max_length

    @abstractmethod
    def read_labels(self, rows: Rows) -> list[Any]:
        """The label of every row as the model takes it; raises DataError where there is none."""

    @abstractmethod
    def predicted(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Labels (N,) from logits (N, outputs)."""

    def prepare(self, rows: Rows) -> Dataset:
        """See `Task.prepare`."""
        names = ("text", "text_pair")[: len(self.text)]
        columns: dict[str, list[Any]] = {
            name: rows.texts(column) for name, column in zip(names, self.text, strict=True)
        }
        columns["label"] = self.read_labels(rows)
        types = {name: Value("string") for name in names} | {"label": Value(self.label_type)}
        return Dataset.from_dict(columns, features=Features(types))

    def encode_training(self, dataset: Dataset, tokenizer: "PreTrainedTokenizerFast") -> Dataset:
        """See `Task.encode_training`; the target is `labels`."""

        def encode(batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
            encoded = tokenizer(
                batch["text"],
                batch.get("text_pair"),
                truncation=True,
                max_length=self.max_length,
            )
            return {
                **encoded,
                "labels": batch["label"],
                "length": [len(ids) for ids in encoded["input_ids"]],
            }

        with quiet():
            return dataset.map(encode, batched=True, remove_columns=dataset.column_names)

    def evaluation_set(
        self, name: str, dataset: Dataset, tokenizer: "PreTrainedTokenizerFast"
    ) -> EvaluationSet:
        """See `Task.evaluation_set`."""
        features = longest_first(self.encode_training(dataset, tokenizer))
        return EvaluationSet(name, features, self._score)

    def _score(self, logits: NDArray[Any], label_ids: NDArray[Any]) -> dict[str, float]:
        predictions = self.predicted(finite(logits))
        labels = np.asarray(label_ids).reshape(-1)
        return {name: METRICS[name](predictions, labels) for name in self.metrics}
