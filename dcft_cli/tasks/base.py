"""What a task is: its rows checked, its inputs encoded, its predictions scored."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from datasets import Dataset

from dcft_cli.data.rows import Rows
from dcft_cli.recipe.schema import TaskType
from dcft_cli.tasks.answers import Answer
from dcft_cli.tasks.prior import Prior

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class RowSet:
    """Checked rows, and where they come from, in the words an error uses."""

    dataset: Dataset
    origin: str


@dataclass(frozen=True)
class EvaluationSet:
    """One validation set, encoded, with the way to its scores.

    Attributes:
        name: of the set; empty where it is the only one.
        features: the model's inputs, `labels` where the model takes them, and `length` (in
            tokens); longest first, so that batches need little padding and the largest batch
            comes first.
        score: from predictions and label ids, as numpy and in the order of `features`, to
            finite scores by metric. Predictions are logits: (N, classes); for token
            classification (N, longest input, classes); for question answering a pair of start
            and end logits, each (N, longest input). Along the inputs they are padded on the
            right with any finite number. Raises TrainingError for predictions that are not finite.
        constant_scores: the scores of a prediction that reads no input, from the logits of the
            training rows' prior; none where there is no such prediction.
        failure: from predictions to what they show where nothing was learned, such as "every row is
            predicted positive"; empty otherwise.
        decode: question answering: from predictions to the answer to each question, by its id.
    """

    name: str
    features: Dataset
    score: Callable[[Any, Any], dict[str, float]]
    constant_scores: Callable[[Any], dict[str, float]]
    failure: Callable[[Any], str]
    decode: Callable[[Any], dict[str, Answer]] | None = None

    @property
    def prefix(self) -> str:
        """What stands before a metric's name when scores of several sets are put together."""
        return f"{self.name}_" if self.name else ""


class Task(ABC):
    """One family of tasks with the settings of one recipe.

    Attributes:
        kind: the family.
        auto_class: name of the transformers class that loads a model for it.
        group_column: column of checked rows by which a held-out set is divided.
        metrics: metrics that `score` reports for every set; the first is the main one.
        labels: class names in the order of their numbers; empty where nothing is classified.
    """

    kind: ClassVar[TaskType]
    auto_class: ClassVar[str]
    group_column: ClassVar[str]
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()

    @property
    @abstractmethod
    def model_settings(self) -> Mapping[str, Any]:
        """Settings of the model's configuration that the task decides."""

    @abstractmethod
    def prepare(self, rows: Rows) -> Dataset:
        """Checks rows and puts them into the family's own columns.

        Raises:
            DataError: a missing column, or rows that do not fit; says which.
        """

    @abstractmethod
    def check_training(self, rows: RowSet) -> None:
        """Raises DataError for training rows from which nothing can be learned."""

    def label_counts(self, dataset: Dataset) -> Counter[int]:
        """How often each class stands in prepared rows, by its number; empty without classes."""
        return Counter()

    def prior(self, dataset: Dataset) -> Prior | None:
        """The best constant prediction for prepared training rows; None where there is none."""
        return None

    @abstractmethod
    def linear_examples(
        self, features: "Tensor", batch: Mapping[str, "Tensor"]
    ) -> "tuple[Tensor, dict[str, Tensor]]":
        """The inputs of the model's last linear layer and their targets, one example an index.

        Args:
            features: inputs of that layer for a batch, (rows, in), or (rows, length, in) for tasks
                that label tokens.
            batch: what the model was given, targets included.

        Returns:
            Features (examples, ..., in), and targets by name, each (examples, ...).
        """

    @abstractmethod
    def linear_loss(self, logits: "Tensor", targets: Mapping[str, "Tensor"]) -> "Tensor":
        """The mean loss of logits (examples, ..., outputs); the model's own, divided by spread^2.

        Args:
            targets: as `linear_examples` gives them, or some of their indices; a regression's are
                standardized.
        """

    def collator(
        self, tokenizer: "PreTrainedTokenizerBase", multiple: int | None = None
    ) -> Callable[[Any], dict[str, Any]]:
        """What puts encoded rows into a batch, each padded to the longest.

        Args:
            multiple: of which the batch's length shall be one.
        """
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)

    @abstractmethod
    def encode_training(self, dataset: Dataset, tokenizer: "PreTrainedTokenizerBase") -> Dataset:
        """Turns prepared rows into the model's inputs, its targets, and `length` (in tokens).

        Nothing is padded; that is the collator's work, on the right.
        """

    @abstractmethod
    def evaluation_set(
        self, name: str, dataset: Dataset, tokenizer: "PreTrainedTokenizerBase"
    ) -> EvaluationSet:
        """Turns prepared rows into a set that a model's predictions can be scored on."""


def class_settings(labels: Sequence[str]) -> dict[str, Any]:
    """What a model's configuration says of its classes."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: number for number, name in enumerate(labels)},
    }


def longest_first(features: Dataset) -> Dataset:
    """Sorts by the column `length`, rows of one length in their old order."""
    lengths = np.asarray(features["length"][:])
    return features.select(np.argsort(-lengths, kind="stable"))
