"""The base of tasks on whole texts: one text or a pair in, one or several labels out."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset, Features, Value
from numpy.typing import NDArray

from dcft_cli.data.evaluation_set import EvaluationSet
from dcft_cli.data.prediction_set import Prediction, PredictionSet, sort_by_length
from dcft_cli.data.rows import Rows
from dcft_cli.data.token_cache import Encode, Tokenizer, encode_rows
from dcft_cli.tasks.base import Task, longest_first
from dcft_cli.tasks.metrics import METRICS, require_finite


class TextTask(Task):
    """A label, or a set of labels, for one text or a pair of texts.

    Prepared rows have the columns `text`, for a pair `text_pair`, and `label`. Of a pair that is
    too long, the longer text is cut first.

    Attributes:
        label_feature: type of the column `label`.
    """

    auto_class = "AutoModelForSequenceClassification"
    group_column = "text"
    target_column = "label"
    label_feature: ClassVar[Any]

    @abstractmethod
    def read_labels(self, rows: Rows) -> list[Any]:
        """Return the label of each row as the model takes it; report rows without one."""

    @abstractmethod
    def predicted(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Return the labels (N,) that logits (N, outputs) predict, or for sets (N, labels)."""

    @abstractmethod
    def predictions(self, logits: NDArray[Any]) -> list[Prediction]:
        """Describe what logits (N, outputs) predict, row by row."""

    def failure(self, logits: NDArray[Any], labels: NDArray[Any]) -> str:
        """See `EvaluationSet.failure`; `labels` are the true ones as the model takes them."""
        predicted = self.predicted(logits)
        if (predicted != predicted[0]).any() or (labels == labels[0]).all():
            return ""
        names = np.atleast_1d(np.array(self.labels)[predicted[0]])
        return f"every row is predicted {', '.join(names) or 'no label'}"

    def prepare(self, rows: Rows) -> Dataset:
        """See `Task.prepare`."""
        columns: dict[str, list[Any]] = {**self._texts(rows), "label": self.read_labels(rows)}
        rows.raise_problems()
        return self._dataset(columns)

    def prepare_inputs(self, rows: Rows) -> Dataset:
        """See `Task.prepare_inputs`."""
        texts = self._texts(rows)
        rows.raise_problems()
        return self._dataset(texts)

    def encode_training(self, dataset: Dataset, tokenizer: Tokenizer) -> Dataset:
        """See `Task.encode_training`; the target is `labels`."""
        return encode_rows(dataset, self._encoder(tokenizer), tokenizer, ("text", self.max_length))

    def evaluation_set(self, name: str, dataset: Dataset, tokenizer: Tokenizer) -> EvaluationSet:
        """See `Task.evaluation_set`."""
        features = longest_first(self.encode_training(dataset, tokenizer))
        labels = np.asarray(features["labels"][:])

        def constant_scores(logits: NDArray[Any]) -> dict[str, float]:
            return self.score(np.tile(logits, (len(labels), 1)), labels)

        return EvaluationSet(
            name, features, self.score, constant_scores, partial(self.failure, labels=labels)
        )

    def prediction_set(self, dataset: Dataset, tokenizer: Tokenizer) -> PredictionSet:
        """See `Task.prediction_set`."""
        inputs = dataset[:]
        inputs.pop(self.target_column, None)
        encoded = self._encoder(tokenizer)(inputs, range(len(dataset)))
        features, order = sort_by_length(encoded)

        def predict(logits: NDArray[Any]) -> list[Prediction]:
            in_order = np.empty_like(logits)
            in_order[order] = require_finite(logits)
            return self.predictions(in_order)

        return PredictionSet(features, order, predict)

    def score(self, logits: NDArray[Any], label_ids: NDArray[Any]) -> dict[str, float]:
        """See `EvaluationSet.score`."""
        predictions = self.predicted(require_finite(logits))
        labels = np.asarray(label_ids).reshape(-1)
        return {name: METRICS[name](predictions, labels) for name in self.metrics}

    def _texts(self, rows: Rows) -> dict[str, list[str]]:
        names = ("text", "text_pair")[: len(self.text)]
        return {name: rows.texts(column) for name, column in zip(names, self.text, strict=True)}

    def _dataset(self, columns: Mapping[str, list[Any]]) -> Dataset:
        types = {
            name: self.label_feature if name == self.target_column else Value("string")
            for name in columns
        }
        return Dataset.from_dict(dict(columns), features=Features(types))

    def _encoder(self, tokenizer: Tokenizer) -> Encode:
        """Return the function that encodes texts; with the target as `labels` if there is one."""

        def encode(batch: Mapping[str, list[Any]], rows: Sequence[int]) -> dict[str, list[Any]]:
            encoded = tokenizer(
                batch["text"], batch.get("text_pair"), truncation=True, max_length=self.max_length
            )
            columns = {**encoded, "length": [len(ids) for ids in encoded["input_ids"]]}
            return columns | ({"labels": batch["label"]} if "label" in batch else {})

        return encode
