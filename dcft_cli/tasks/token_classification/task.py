"""Token classification as a task."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from scipy.special import softmax

from dcft_cli.data.conll import LABELS_COLUMN, WORDS_COLUMN
from dcft_cli.data.evaluation_set import EvaluationSet
from dcft_cli.data.prediction_set import Prediction, PredictionSet, shortened, sort_by_length
from dcft_cli.data.rows import Rows
from dcft_cli.data.token_cache import Encode, Tokenizer, encode_rows
from dcft_cli.errors import DataError
from dcft_cli.recipe.schema import DataSection, TaskSection
from dcft_cli.tasks.base import Task, Tensor, longest_first
from dcft_cli.tasks.calibration import softmax_calibration, softmax_temperature
from dcft_cli.tasks.decision import Decision
from dcft_cli.tasks.metrics import accuracy, macro_f1, require_finite
from dcft_cli.tasks.report import class_scores, report_classes
from dcft_cli.tasks.token_classification.rows import (
    label_column,
    prepare_sentences,
    prepare_words,
    word_spans,
)
from dcft_cli.tasks.token_classification.scoring import (
    OUTSIDE,
    TAGGING,
    Tag,
    are_entity_tags,
    count_entities,
    entities,
    read_tag,
    score_entities,
    tags_and_others,
)
from dcft_cli.tasks.token_classification.windows import assign_words, encode_words

IGNORED = -100
"""Label of tokens that do not count in the loss: all but the first of each word."""

Numbers = NDArray[np.int64]

_UNNAMED = "entity"  # the type of plain B and I
_WINDOW_COLUMNS = ["row", "words", "tokens"]


class TokenClassification(Task):
    """Label the words of a sentence, by the first token of each.

    If the labels are tags of entities (B-PER, I-PER, O), entities are scored, else words. A word
    that yields no tokens counts as predicted O, or as an error if there is no O.

    Prepared rows have the columns `text`, `words` and `labels`.

    Raises:
        DataError: only some of the labels are tags of entities.
    """

    kind = "token_classification"
    auto_class = "AutoModelForTokenClassification"
    group_column = "text"
    target_column = "labels"
    own_settings = ("calibrate",)
    choosable = ("temperature",)
    needs_offsets = True
    default_text = (WORDS_COLUMN,)
    default_label = LABELS_COLUMN
    txt_format = "conll"
    predicted_columns = ("prediction", "probabilities", "entities")

    def __init__(self, task: TaskSection, data: DataSection, labels: Sequence[str]) -> None:
        super().__init__(task, data, labels)
        self.document_stride = data.document_stride
        self.tags = [read_tag(name) for name in labels] if are_entity_tags(labels) else None
        words, entities = ("accuracy", "macro_f1"), ("f1", "precision", "recall", "accuracy")
        self.metrics = entities if self.tags else words

    @classmethod
    def find_labels(cls, rows: Rows, column: str, data: DataSection) -> tuple[str, ...]:
        """See `Task.find_labels`; raises DataError too if only some labels are tags of entities."""
        found = label_column(rows, column)
        names = found.class_names()
        tags, others = tags_and_others(names)
        if others:
            what = f"another label beside tags of entities ({tags[0]})"
            found.report_labels(others, what, TAGGING)
            rows.raise_problems()
        return names

    def prepare(self, rows: Rows) -> Dataset:
        """See `Task.prepare`."""
        return prepare_sentences(rows, self.text[0], self.label[0], self.labels, self.order)

    def prepare_inputs(self, rows: Rows) -> Dataset:
        """See `Task.prepare_inputs`; a text is split into words at white space."""
        return prepare_words(rows, self.text[0])

    def describe_target(self, target: Sequence[int]) -> list[str]:
        """See `Task.describe_target`."""
        return [self.labels[number] for number in target]

    def label_counts(self, dataset: Dataset) -> Counter[int]:
        """See `Task.label_counts`."""
        return Counter(chain.from_iterable(dataset["labels"][:]))

    def collator(
        self, tokenizer: Tokenizer, multiple: int | None = None
    ) -> Callable[[Any], dict[str, Any]]:
        """See `Task.collator`: labels are padded too."""
        from transformers import DataCollatorForTokenClassification

        return DataCollatorForTokenClassification(
            tokenizer, pad_to_multiple_of=multiple, label_pad_token_id=IGNORED
        )

    def encode_training(self, dataset: Dataset, tokenizer: Tokenizer) -> Dataset:
        """See `Task.encode_training`; the targets are `labels`, one per token."""
        return self._encode(dataset, tokenizer).remove_columns(_WINDOW_COLUMNS)

    def evaluation_set(self, name: str, dataset: Dataset, tokenizer: Tokenizer) -> EvaluationSet:
        """See `Task.evaluation_set`."""
        encoded = longest_first(self._encode(dataset, tokenizer))
        rows, words, tokens = (encoded[column][:] for column in _WINDOW_COLUMNS)
        sentences = [np.asarray(labels, np.int64) for labels in dataset["labels"][:]]
        expected, ends = np.concatenate(sentences), np.cumsum([*map(len, sentences)])
        first = ends - [*map(len, sentences)]
        # Of the words that yield tokens, among the words of all sentences.
        places = np.concatenate([first[r] + np.array(w) for r, w in zip(rows, words, strict=True)])
        missing = self.labels.index(OUTSIDE) if self.tags and OUTSIDE in self.labels else -1

        def word_logits(predictions: NDArray[Any]) -> NDArray[Any]:
            """Return the logits of the words at `places`, (words, classes)."""
            pairs = zip(require_finite(predictions), tokens, strict=True)
            return np.concatenate([logits[of_words] for logits, of_words in pairs])

        def predicted(predictions: NDArray[Any]) -> Numbers:
            classes = np.full(len(expected), missing)
            classes[places] = word_logits(predictions).argmax(axis=-1)
            return classes

        def choose(predictions: NDArray[Any]) -> None:
            if self.chosen:
                temperature = softmax_temperature(word_logits(predictions), expected[places])
                self.decision = Decision(temperature)

        def report(predictions: NDArray[Any]) -> dict[str, Any]:
            by_class = self.report_words(predicted(predictions), expected, ends)
            logits, temperature = word_logits(predictions), self.decision.temperature
            calibration = softmax_calibration(logits, expected[places], temperature)
            return {**by_class, "calibration": calibration}

        def score(predictions: NDArray[Any], label_ids: object = None) -> dict[str, float]:
            return self.score_words(predicted(predictions), expected, ends)

        def constant_scores(logits: NDArray[Any]) -> dict[str, float]:
            shape = (len(encoded), max(encoded["length"][:]), len(self.labels))
            return score(np.broadcast_to(logits, shape))

        def failure(predictions: NDArray[Any]) -> str:
            classes = set(predicted(predictions).tolist()) - {-1}
            if len(classes) > 1 or (expected == expected[0]).all():
                return ""
            return f"every word is labeled {self.labels[classes.pop()] if classes else 'nothing'}"

        features = encoded.remove_columns([*_WINDOW_COLUMNS, "labels"])
        return EvaluationSet(
            name,
            features,
            score,
            constant_scores,
            report=report,
            choose=choose,
            failure=failure,
        )

    def prediction_set(self, dataset: Dataset, tokenizer: Tokenizer) -> PredictionSet:
        """See `Task.prediction_set`."""
        inputs = {"words": dataset["words"][:]}
        encoded = self._encoder(tokenizer)(inputs, range(len(dataset)))
        features, _ = sort_by_length(encoded)
        windows = [features.pop(column) for column in _WINDOW_COLUMNS]
        missing = OUTSIDE if self.tags and OUTSIDE in self.labels else None

        def predict(outputs: NDArray[Any]) -> list[Prediction]:
            sentences = inputs["words"]
            tags: list[list[str | None]] = [[missing] * len(words) for words in sentences]
            found: list[list[float | None]] = [[None] * len(words) for words in sentences]
            for row, words, tokens, logits in zip(*windows, require_finite(outputs), strict=True):
                chosen = logits[tokens].astype(np.float64)
                numbers = chosen.argmax(axis=-1)
                probabilities = softmax(chosen / self.decision.temperature, axis=-1).max(axis=-1)
                for word, number, p in zip(words, numbers, probabilities, strict=True):
                    tags[row][word], found[row][word] = self.labels[number], shortened(p)
            return list(map(self._describe, dataset["text"][:], sentences, tags, found))

        return PredictionSet(features, np.asarray(windows[0], np.int64), predict)

    def linear_examples(
        self, features: Tensor, batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Task.linear_examples`: the first token of every word."""
        labeled = batch["labels"] != IGNORED
        return features[labeled], {"labels": batch["labels"][labeled]}

    def score_words(self, predicted: Numbers, expected: Numbers, ends: Numbers) -> dict[str, float]:
        """Score the words, or the entities, of all sentences.

        Args:
            predicted: class numbers of the words of all sentences, (words,); -1 for none.
            expected: true class numbers, (words,).
            ends: number of words up to the end of each sentence, (sentences,).
        """
        right = accuracy(predicted, expected)
        if self.tags is None:
            return {"accuracy": right, "macro_f1": macro_f1(predicted, expected)}
        scores = score_entities(self._read(predicted, ends), self._read(expected, ends))
        return scores | {"accuracy": right}

    def report_words(self, predicted: Numbers, expected: Numbers, ends: Numbers) -> dict[str, Any]:
        """Report on the words of all sentences, or on the entities by type.

        Confusions of entities are counted by word: words of one type tagged as another, or as
        none (O).

        Args:
            predicted, expected, ends: of `score_words`.
        """
        if self.tags is None:
            return report_classes(self.labels, expected, predicted)
        types = sorted({type_ for mark, type_ in self.tags if mark != OUTSIDE})
        names = [OUTSIDE, *(type_ or _UNNAMED for type_ in types)]
        # Each tag as the number of its type in `names`; the last one is for -1.
        numbers = np.array([types.index(t) + 1 if m != OUTSIDE else 0 for m, t in self.tags] + [0])
        counts = count_entities(self._read(predicted, ends), self._read(expected, ends))
        return report_classes(names, numbers[expected], numbers[predicted]) | {
            "unit": "entity",
            "classes": {
                type_ or _UNNAMED: class_scores(*counts.get(type_, (0, 0, 0))) for type_ in types
            },
        }

    def _read(self, words: Numbers, ends: Numbers) -> list[list[Tag]]:
        """Return the tags of each sentence from class numbers; O for -1."""
        assert self.tags is not None
        tags = [*self.tags, (OUTSIDE, "")]
        return [[tags[n] for n in sentence] for sentence in np.split(words, ends[:-1])]

    def _describe(
        self,
        text: str,
        words: Sequence[str],
        tags: Sequence[str | None],
        probabilities: Sequence[float | None],
    ) -> Prediction:
        """Return the prediction for one sentence, from the tag of each word."""
        described: Prediction = {"prediction": tags, "probabilities": probabilities}
        if self.tags is not None:
            spans = word_spans(text, words)
            described["entities"] = [
                {
                    "type": type_ or _UNNAMED,
                    "text": text[spans[first][0] : spans[last][1]],
                    "start": spans[first][0],
                    "end": spans[last][1],
                    "probability": _mean(probabilities[first : last + 1]),
                }
                for first, last, type_ in entities([read_tag(tag or OUTSIDE) for tag in tags])
            ]
        return described

    def _encode(self, dataset: Dataset, tokenizer: Tokenizer) -> Dataset:
        settings = ("words", self.max_length, self.document_stride)
        encoded = encode_rows(dataset, self._encoder(tokenizer), tokenizer, settings)
        if not len(encoded):
            raise DataError(
                f"The tokenizer makes no token of any word of these {len(dataset):,} rows.",
                "Check data.text, and that the base model is for texts like these.",
            )
        return encoded

    def _encoder(self, tokenizer: Tokenizer) -> Encode:
        """Return the function that encodes sentences as windows.

        Its columns are the model's inputs, the words that count in each, and targets if there are
        labels.
        """

        def encode(batch: Mapping[str, list[Any]], rows: Sequence[int]) -> dict[str, list[Any]]:
            encoded = encode_words(batch["words"], tokenizer, self.max_length, self.document_stride)
            sentences = encoded["overflow_to_sample_mapping"]
            assigned = assign_words(encoded)
            kept = [window for window, words in enumerate(assigned) if words]
            columns: dict[str, list[Any]] = {
                name: [values[window] for window in kept]
                for name, values in encoded.items()
                if name != "overflow_to_sample_mapping"
            }
            if "labels" in batch:
                labels = [[IGNORED] * len(ids) for ids in columns["input_ids"]]
                for targets, window in zip(labels, kept, strict=True):
                    for word, token in assigned[window].items():
                        targets[token] = batch["labels"][sentences[window]][word]
                columns["labels"] = labels
            return columns | {
                "length": [len(ids) for ids in columns["input_ids"]],
                "row": [rows[sentences[window]] for window in kept],
                "words": [list(assigned[window]) for window in kept],
                "tokens": [list(assigned[window].values()) for window in kept],
            }

        return encode


def _mean(probabilities: Sequence[float | None]) -> float:
    known = [p for p in probabilities if p is not None]
    return shortened(sum(known) / len(known))
