"""Token classification: a label for every word of a sentence."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from dcft_cli.data.rows import Rows
from dcft_cli.data.token_cache import encode_rows
from dcft_cli.errors import DataError
from dcft_cli.tasks.base import EvaluationSet, RowSet, Task, class_settings, longest_first
from dcft_cli.tasks.entities import (
    METRICS_OF_ENTITIES,
    OUTSIDE,
    mark_entities,
    read_tag,
    score_entities,
)
from dcft_cli.tasks.metrics import accuracy, finite, macro_f1_of_counts
from dcft_cli.tasks.prior import Prior, prior_of_classes
from dcft_cli.tasks.sentences import prepare_sentences
from dcft_cli.tasks.word_windows import WordWindow, encode_words

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of tokens that take no part in the loss: all but the first of each word."""

Numbers = NDArray[np.int64]

_PLACE_COLUMNS = ["row", "words", "tokens"]


class TokenClassification(Task):
    """Labels the words of a sentence, by the first token of each.

    If the labels are tags of entities (B-PER, I-PER, O), entities are scored, else words. A word
    of which the tokenizer leaves nothing counts as labelled O, or wrongly where there is no O.

    Prepared rows have the columns `text`, `words` and `labels`.

    Args:
        labels: class names in the order of their numbers.
        words: name of the column of words.
        label: name of the column of labels.
        max_length: longest window in tokens.
        document_stride: tokens that neighbouring windows of one sentence share, half a window
            at most.

    Raises:
        DataError: some labels are tags of entities, others are not.
    """

    kind = "token_classification"
    auto_class = "AutoModelForTokenClassification"
    group_column = "text"

    def __init__(
        self,
        labels: Sequence[str],
        words: str,
        label: str,
        max_length: int,
        document_stride: int,
    ) -> None:
        self.labels = tuple(labels)
        self.words = words
        self.label = label
        self.max_length = max_length
        self.document_stride = document_stride
        self.tags = [read_tag(name) for name in labels] if mark_entities(labels) else None
        self.metrics = (*METRICS_OF_ENTITIES, "accuracy") if self.tags else ("accuracy", "macro_f1")

    @property
    def model_settings(self) -> Mapping[str, Any]:
        """See `Task.model_settings`."""
        return class_settings(self.labels)

    def prepare(self, rows: Rows) -> Dataset:
        """See `Task.prepare`."""
        return prepare_sentences(rows, self.words, self.label, self.labels)

    def label_counts(self, dataset: Dataset) -> Counter[int]:
        """See `Task.label_counts`."""
        return Counter(chain.from_iterable(dataset["labels"][:]))

    def check_training(self, rows: RowSet) -> None:
        """See `Task.check_training`."""
        counts = self.label_counts(rows.dataset)
        if len(counts) == 1:
            (number,) = counts
            raise DataError(
                f"{rows.origin}: every word has the same label, {self.labels[number]}.",
                "A model learns from words of at least two classes.",
            )

    def collator(
        self, tokenizer: "PreTrainedTokenizerBase", multiple: int | None = None
    ) -> Callable[[Any], dict[str, Any]]:
        """See `Task.collator`: labels are padded too."""
        from transformers import DataCollatorForTokenClassification

        return DataCollatorForTokenClassification(
            tokenizer, pad_to_multiple_of=multiple, label_pad_token_id=IGNORED
        )

    def _windows(
        self, batch: Mapping[str, list[Any]], tokenizer: "PreTrainedTokenizerBase"
    ) -> list[WordWindow]:
        return encode_words(batch["words"], tokenizer, self.max_length, self.document_stride)

    def encode_training(self, dataset: Dataset, tokenizer: "PreTrainedTokenizerBase") -> Dataset:
        """See `Task.encode_training`; the targets are `labels`, one a token."""

        def encode(batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
            windows = self._windows(batch, tokenizer)
            targets = []
            for window in windows:
                labels = batch["labels"][window.sentence]
                target = [IGNORED] * len(window.inputs["input_ids"])
                for word, token in zip(window.words, window.tokens, strict=True):
                    target[token] = labels[word]
                targets.append(target)
            return _inputs(windows, tokenizer) | {"labels": targets}

        settings = ("word labels", self.max_length, self.document_stride)
        return _with_words(encode_rows(dataset, encode, tokenizer, settings), "training")

    def evaluation_set(
        self, name: str, dataset: Dataset, tokenizer: "PreTrainedTokenizerBase"
    ) -> EvaluationSet:
        """See `Task.evaluation_set`."""

        def encode(batch: Mapping[str, list[Any]], rows: list[int]) -> dict[str, list[Any]]:
            windows = self._windows(batch, tokenizer)
            return _inputs(windows, tokenizer) | {
                "row": [rows[window.sentence] for window in windows],
                "words": [window.words for window in windows],
                "tokens": [window.tokens for window in windows],
            }

        settings = ("words", self.max_length, self.document_stride)
        encoded = encode_rows(dataset, encode, tokenizer, settings, with_indices=True)
        encoded = longest_first(_with_words(encoded, name or "validation"))
        places = [encoded[column][:] for column in _PLACE_COLUMNS]
        expected = [np.asarray(labels, np.int64) for labels in dataset["labels"][:]]
        missing = self.labels.index(OUTSIDE) if self.tags and OUTSIDE in self.labels else -1

        def guess(predictions: NDArray[Any]) -> list[Numbers]:
            guessed = [np.full(len(labels), missing) for labels in expected]
            for row, words, tokens, logits in zip(*places, finite(predictions), strict=True):
                guessed[row][words] = logits[tokens].argmax(axis=-1)
            return guessed

        def score(predictions: NDArray[Any], label_ids: object = None) -> dict[str, float]:
            return self.score_words(guess(predictions), expected)

        def constant_scores(logits: NDArray[Any]) -> dict[str, float]:
            shape = (len(encoded), max(encoded["length"][:]), len(self.labels))
            return score(np.broadcast_to(logits, shape))

        def failure(predictions: NDArray[Any]) -> str:
            classes = set(np.concatenate(guess(predictions)).tolist()) - {-1}
            if len(classes) > 1 or len(set(np.concatenate(expected).tolist())) == 1:
                return ""
            return f"every word is labeled {self.labels[classes.pop()] if classes else 'nothing'}"

        features = encoded.remove_columns(_PLACE_COLUMNS)
        return EvaluationSet(name, features, score, constant_scores, failure)

    def prior(self, dataset: Dataset) -> Prior:
        """See `Task.prior`."""
        labels = np.fromiter(chain.from_iterable(dataset["labels"][:]), np.int64)
        return prior_of_classes(np.bincount(labels, minlength=len(self.labels)))

    def linear_examples(
        self, features: "Tensor", batch: Mapping[str, "Tensor"]
    ) -> "tuple[Tensor, dict[str, Tensor]]":
        """See `Task.linear_examples`: the first token of every word."""
        labeled = batch["labels"] != IGNORED
        return features[labeled], {"labels": batch["labels"][labeled]}

    def linear_loss(self, logits: "Tensor", targets: Mapping[str, "Tensor"]) -> "Tensor":
        """See `Task.linear_loss`."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, targets["labels"])

    def score_words(
        self, guessed: Sequence[Numbers], expected: Sequence[Numbers]
    ) -> dict[str, float]:
        """Scores of the words of all sentences.

        Args:
            guessed: number of the predicted class of every word, by sentence; -1 for none.
            expected: number of the true class.
        """
        flat, true = np.concatenate(guessed), np.concatenate(expected)
        right = accuracy(flat, true)
        if self.tags is None:
            classes = len(self.labels)
            hits = np.bincount(true[flat == true], minlength=classes)
            predicted = np.bincount(flat[flat >= 0], minlength=classes)
            present = np.bincount(true, minlength=classes)
            return {"accuracy": right, "macro_f1": macro_f1_of_counts(hits, predicted, present)}
        tags = [*self.tags, (OUTSIDE, "")]  # the last one: of no prediction

        def read(sentences: Sequence[Numbers]) -> list[list[tuple[str, str]]]:
            return [[tags[number] for number in numbers] for numbers in sentences]

        return score_entities(read(guessed), read(expected)) | {"accuracy": right}


def _inputs(
    windows: Sequence[WordWindow], tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, list[Any]]:
    """The model's inputs, and their lengths."""
    names = windows[0].inputs if windows else tokenizer.model_input_names
    inputs: dict[str, list[Any]] = {
        name: [window.inputs[name] for window in windows] for name in names
    }
    return inputs | {"length": [len(window.inputs["input_ids"]) for window in windows]}


def _with_words(encoded: Dataset, name: str) -> Dataset:
    """The set itself, if there is something in it to learn from or to score."""
    if not len(encoded):
        raise DataError(
            f"The {name} data have no word that makes a token.",
            "Is it the right column of words? They must be more than blanks.",
        )
    return encoded
