"""The interface of a task family: check rows, encode them, score predictions."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from dcft_cli.data.evaluation_set import EvaluationSet
from dcft_cli.data.prediction_set import PredictionSet
from dcft_cli.data.rows import Rows, RowSet
from dcft_cli.data.token_cache import Tokenizer
from dcft_cli.errors import DataError, RecipeError
from dcft_cli.recipe.schema import DataSection, TaskSection, TaskType
from dcft_cli.tasks.class_weights import Weights, balanced_classes, mean_one, named_weights
from dcft_cli.tasks.decision import CHOOSING, Decision
from dcft_cli.tasks.known import known_task
from dcft_cli.tasks.prior import Prior, prior_of_classes

if TYPE_CHECKING:
    import torch

    from dcft_cli.targets.gradients import Loss

Tensor: TypeAlias = "torch.Tensor"

_OF_SOME_FAMILIES = (
    "threshold", "calibrate", "unanswerable", "null_threshold", "n_best", "max_answer_length",
)  # fmt: skip


class Task(ABC):
    """A task: one family with the settings of one recipe.

    A family sets `kind`, `auto_class`, `group_column`, `target_column`, `predicted_columns` and
    `metrics`, and implements the abstract methods; all other attributes have defaults. The training
    loss is that of `auto_class` for its `problem_type`, or else `training_loss`.

    Attributes:
        kind: the family's name.
        auto_class: name of the transformers class that loads a model for it.
        problem_type: what transformers calls the problem, which sets the loss.
        group_column: column of prepared rows by which a held-out set is split off.
        target_column: column of prepared rows that holds what is to be predicted.
        class_column: column of class numbers that a held-out set has in equal shares; None: none.
        has_classes: whether the family needs class names.
        own_settings: of the `task` section's settings that not all families have, those it has.
        choosable: parts of `decision` that can be chosen on validation rows.
        needs_offsets: whether it needs to know which characters a token covers.
        default_text: text columns, if the family has its own; then their number is fixed.
        default_label: label column, unless the recipe names another.
        several_label_columns: whether there may be more than one.
        txt_format: format of files that end in .txt.
        predicted_columns: that predictions have, or may have.
        text: names of the text columns.
        label: names of the label columns.
        labels: class names in the order of their numbers; empty without classes.
        order: the same names in the order that numbers in the data mean; empty if it was not
            declared, so that numbers are only names.
        metrics: that `score` reports for every set; the first is the main one.
        decision: how logits become predictions.
        chosen: parts of `decision` that the recipe asks to choose on validation rows.
        class_weights: of the loss, (classes,); None for none.
    """

    kind: ClassVar[TaskType]
    auto_class: ClassVar[str]
    problem_type: ClassVar[str | None] = None
    group_column: ClassVar[str]
    target_column: ClassVar[str]
    class_column: ClassVar[str | None] = None
    has_classes: ClassVar[bool] = True
    own_settings: ClassVar[Collection[str]] = ()
    choosable: ClassVar[Collection[str]] = ()
    needs_offsets: ClassVar[bool] = False
    default_text: ClassVar[tuple[str, ...]] = ()
    default_label: ClassVar[str] = "label"
    several_label_columns: ClassVar[bool] = False
    txt_format: ClassVar[str | None] = None
    predicted_columns: ClassVar[tuple[str, ...]]
    metrics: tuple[str, ...]

    def __init__(self, task: TaskSection, data: DataSection, labels: Sequence[str] = ()) -> None:
        self.text, self.label = self.columns(task, data)
        if known := known_task(task.name):
            self.metrics = known.metrics
        self.labels = tuple(labels)
        self.order = declared_labels(task, data) or ()
        self.max_length = data.max_length
        self.decision = Decision()
        wanted = {
            "temperature": task.calibrate,
            "thresholds": isinstance(task.threshold, str),
            "null_threshold": isinstance(task.null_threshold, str),
        }
        self.chosen = tuple(part for part, is_wanted in wanted.items() if is_wanted)
        for setting in _OF_SOME_FAMILIES:
            without = TaskSection.model_fields[setting].default
            if setting not in self.own_settings and getattr(task, setting) != without:
                raise RecipeError(
                    f"task.{setting} does not apply to {self.kind}.",
                    f"Set task.{setting}={json.dumps(without)}, the default.",
                )
        self.class_weights: Weights | None = None

    @classmethod
    def columns(
        cls, task: TaskSection, data: DataSection
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the text columns and of the label columns.

        They are the recipe's, else the known task's, else the family's.

        Raises:
            RecipeError: there is no text column, or the family takes another number of columns.
        """
        known = known_task(task.name)
        text = tuple(data.text or (known.text if known else cls.default_text))
        if not text:
            raise RecipeError(
                "The recipe does not say which column holds the text.",
                'Set data.text=COLUMN, or for a pair of texts data.text="[COLUMN, COLUMN]".',
            )
        if cls.default_text and len(text) != len(cls.default_text):
            raise RecipeError(
                f"data.text names {_columns(text)}; {cls.kind} takes {len(cls.default_text)}.",
                f'For example: data.text="[{", ".join(cls.default_text)}]".',
            )
        label = data.label or cls.default_label
        if isinstance(label, str):
            return text, (label,)
        if not cls.several_label_columns:
            raise RecipeError(
                f"data.label names {_columns(label)}; {cls.kind} takes 1.",
                "For columns of 0 and 1, one per label, set task.type=multi_label.",
            )
        return text, tuple(label)

    @classmethod
    def find_labels(cls, rows: Rows, column: str, data: DataSection) -> tuple[str, ...]:
        """Return the class names in the label column of training rows; none without classes.

        Values that cannot name a class are passed over; `prepare` reports them.

        Raises:
            DataError: there is no such column; fewer than two classes.
        """
        return ()

    @property
    def model_settings(self) -> dict[str, Any]:
        """Settings of the model's configuration that the task determines."""
        settings: dict[str, Any] = {}
        if self.problem_type:
            settings["problem_type"] = self.problem_type
        if self.labels:
            settings["num_labels"] = len(self.labels)
            settings["id2label"] = dict(enumerate(self.labels))
            settings["label2id"] = {name: number for number, name in enumerate(self.labels)}
        return settings

    @abstractmethod
    def prepare(self, rows: Rows) -> Dataset:
        """Check rows and put them into the family's own columns.

        Raises:
            DataError: a missing column, or rows that do not fit; names them.
        """

    @abstractmethod
    def prepare_inputs(self, rows: Rows) -> Dataset:
        """Check rows without labels and put them into the columns of `prepare`, less the target.

        Raises:
            DataError: a missing column, or rows that do not fit; names them.
        """

    def describe_target(self, target: Any) -> Any:
        """Return a value of `target_column` as predictions are written: names, not numbers."""
        return target

    def label_counts(self, dataset: Dataset) -> Counter[int]:
        """Count the rows (or words) of each class, by its number; empty without classes."""
        return Counter()

    def check_training(self, rows: RowSet) -> None:
        """Raise DataError if nothing can be learned from training rows."""
        counts = self.label_counts(rows.dataset)
        if len(counts) == 1:
            (number,) = counts
            raise DataError(
                f"{rows.source}: every label is {self.labels[number]}.",
                "At least two classes are needed.",
            )

    def weight_classes(self, weights: str | Mapping[str, float], dataset: Dataset) -> None:
        """Weight the classes in the loss.

        Args:
            weights: "balanced", or weights by name.
            dataset: training rows.

        Raises:
            RecipeError: the family has no classes, or there is none of that name.
        """
        if not self.has_classes:
            raise RecipeError(
                f"training.class_weights does not apply to {self.kind}, which has no classes.",
                "Set training.class_weights=null.",
            )
        counts = self._counts(dataset)
        by_class = (
            balanced_classes(counts)
            if isinstance(weights, str)
            else named_weights(weights, self.labels)
        )
        self.class_weights = mean_one(by_class, counts)

    def prior(self, dataset: Dataset, *, weighted: bool = True) -> Prior | None:
        """Return the constant prediction with the lowest loss on training rows, if there is one.

        Args:
            weighted: False leaves class weights out: the most frequent class is predicted.
        """
        counts = self._counts(dataset)
        if weighted and self.class_weights is not None:
            counts = counts * self.class_weights
        return prior_of_classes(counts) if counts.any() else None

    def _counts(self, dataset: Dataset) -> NDArray[Any]:
        counts = self.label_counts(dataset)
        return np.array([counts[number] for number in range(len(self.labels))])

    def linear_examples(
        self, features: Tensor, batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the inputs of the model's last linear layer and their targets, by example.

        Args:
            features: inputs of that layer for a batch, (rows, in), or (rows, length, in) for
                families that predict for tokens.
            batch: the model's inputs, including the targets.

        Returns:
            Features (examples, ..., in), and targets by name, each (examples, ...).
        """
        return features, {"labels": batch["labels"]}

    def linear_loss(self, logits: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss of logits (examples, ..., outputs).

        It is the loss that training computes, with class weights if there are any. For a
        regression both logits and targets are standardized, so it is divided by spread^2.

        Args:
            targets: of `linear_examples`, or a part of the examples.
        """
        from torch.nn.functional import cross_entropy

        labels = targets["labels"]
        if self.class_weights is None:
            return cross_entropy(logits, labels)
        weights = logits.new_tensor(self.class_weights)
        # Not torch's own mean, which divides by the weights of the batch: see `mean_one`.
        return cross_entropy(logits, labels, weight=weights, reduction="sum") / len(labels)

    @property
    def training_loss(self) -> "Loss | None":
        """Return what training computes as its loss; None: the model's own."""
        return None if self.class_weights is None else self.loss

    def loss(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss of a model's outputs for a batch, with class weights."""
        return self.linear_loss(*self.linear_examples(outputs["logits"], batch))

    def restore_decision(self, stored: Mapping[str, Any]) -> tuple[str, ...]:
        """Decide as an adapter file says; a number in the recipe overrides a chosen threshold.

        Args:
            stored: what training chose: `Decision.to_json(chosen)`.

        Returns:
            The parts of `decision` that were chosen in training.

        Raises:
            RecipeError: the recipe asks for a choice that was not made for this adapter.
        """
        if missing := [CHOOSING[part] for part in self.chosen if part not in stored]:
            raise RecipeError(
                "This adapter comes without what `dcft train` chooses at the end of a run for "
                f"{' and '.join(choosing.setting for choosing in missing)}, as checkpoints do.",
                f"Set {' '.join('='.join(choosing) for choosing in missing)}.",
            )
        # Thresholds that were chosen apply to calibrated probabilities, so it is always used.
        used = [part for part in stored if part == "temperature" or part in self.chosen]
        self.decision = replace(self.decision, **{part: stored[part] for part in used})
        return tuple(used)

    def collator(
        self, tokenizer: Tokenizer, multiple: int | None = None
    ) -> Callable[[Any], dict[str, Any]]:
        """Return a function that makes a batch of encoded rows.

        Rows are padded to the longest, on the tokenizer's padding side.

        Args:
            multiple: pad to a multiple of this length.
        """
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)

    @abstractmethod
    def encode_training(self, dataset: Dataset, tokenizer: Tokenizer) -> Dataset:
        """Turn prepared rows into model inputs, targets, and `length` (in tokens), not padded."""

    @abstractmethod
    def evaluation_set(self, name: str, dataset: Dataset, tokenizer: Tokenizer) -> EvaluationSet:
        """Turn prepared rows into a set on which a model's predictions can be scored."""

    @abstractmethod
    def prediction_set(self, dataset: Dataset, tokenizer: Tokenizer) -> PredictionSet:
        """Turn prepared inputs into a set that a model can predict; a target is ignored.

        Its inputs have the order of those of `evaluation_set` for the same rows.
        """


def declared_labels(task: TaskSection, data: DataSection) -> tuple[str, ...] | None:
    """Return the recipe's class names, else the known task's, else the label columns."""
    known = known_task(task.name)
    columns = data.label if isinstance(data.label, list) else ()
    return tuple(task.labels or (known.labels if known else columns)) or None


def longest_first(features: Dataset) -> Dataset:
    """Sort by the column `length`, descending and stable."""
    lengths = np.asarray(features["length"][:])
    return features.select(np.argsort(-lengths, kind="stable"))


def _columns(names: Sequence[str]) -> str:
    return f"{len(names)} column{'s' if len(names) > 1 else ''} ({', '.join(names)})"
