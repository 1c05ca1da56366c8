"""The base of tasks on whole texts: one text or a pair in, one or several labels out."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset, Features, Value
from numpy.typing import NDArray

from dcft_cli.data.evaluation_set import EvaluationSet
from dcft_cli.data.rows import Rows
from dcft_cli.data.token_cache import Tokenizer, encode_rows
from dcft_cli.tasks.base import Task, longest_first
from dcft_cli.tasks.decision import Decision
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
    label_feature: ClassVar[Any]

    @abstractmethod
    def read_labels(self, rows: Rows) -> list[Any]:
        """Return the label of each row as the model takes it; raise DataError without one."""

    @abstractmethod
    def predicted(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Return the labels (N,) that logits (N, outputs) predict, or for sets (N, labels)."""

    def failure(self, logits: NDArray[Any], labels: NDArray[Any]) -> str:
        """See `EvaluationSet.failure`; `labels` are the true ones as the model takes them."""
        predicted = self.predicted(logits)
        if (predicted != predicted[0]).any() or (labels == labels[0]).all():
            return ""
        names = np.atleast_1d(np.array(self.labels)[predicted[0]])
        return f"every row is predicted {', '.join(names) or 'no label'}"

    def best_decision(self, logits: NDArray[Any], labels: NDArray[Any]) -> Decision:
        """Return `decision` with the parts in `chosen` chosen for these rows."""
        return self.decision

    def report(self, logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, Any] | None:
        """See `EvaluationSet.report`."""
        return None

    def prepare(self, rows: Rows) -> Dataset:
        """See `Task.prepare`."""
        names = ("text", "text_pair")[: len(self.text)]
        columns: dict[str, list[Any]] = {
            name: rows.texts(column) for name, column in zip(names, self.text, strict=True)
        }
        columns["label"] = self.read_labels(rows)
        types = {name: Value("string") for name in names} | {"label": self.label_feature}
        return Dataset.from_dict(columns, features=Features(types))

    def encode_training(self, dataset: Dataset, tokenizer: Tokenizer) -> Dataset:
        """See `Task.encode_training`; the target is `labels`."""

        def encode(batch: Mapping[str, list[Any]], rows: list[int]) -> dict[str, list[Any]]:
            encoded = tokenizer(
                batch["text"], batch.get("text_pair"), truncation=True, max_length=self.max_length
            )
            lengths = [len(ids) for ids in encoded["input_ids"]]
            return {**encoded, "labels": batch["label"], "length": lengths}

        return encode_rows(dataset, encode, tokenizer, ("text", self.max_length))

    def evaluation_set(self, name: str, dataset: Dataset, tokenizer: Tokenizer) -> EvaluationSet:
        """See `Task.evaluation_set`."""
        features = longest_first(self.encode_training(dataset, tokenizer))
        labels = np.asarray(features["labels"][:])

        def constant_scores(logits: NDArray[Any]) -> dict[str, float]:
            predictions = np.tile(logits, (len(labels), 1))
            choose(predictions)
            return self.score(predictions, labels)

        def choose(predictions: NDArray[Any]) -> None:
            if self.chosen:
                self.decision = self.best_decision(require_finite(predictions), labels)

        return EvaluationSet(
            name,
            features,
            self.score,
            constant_scores,
            report=partial(self.report, labels=labels),
            choose=choose,
            failure=partial(self.failure, labels=labels),
        )

    def score(self, logits: NDArray[Any], label_ids: NDArray[Any]) -> dict[str, float]:
        """See `EvaluationSet.score`."""
        predictions = self.predicted(require_finite(logits))
        labels = np.asarray(label_ids).reshape(-1)
        return {name: METRICS[name](predictions, labels) for name in self.metrics}
