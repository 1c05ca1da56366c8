"""Extractive question answering: the span of a context that answers a question."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from numpy.typing import NDArray

from dcft_cli.data.rows import Rows
from dcft_cli.data.token_cache import encode_rows
from dcft_cli.tasks.answers import Answer, Window, decode
from dcft_cli.tasks.base import EvaluationSet, RowSet, Task, longest_first
from dcft_cli.tasks.metrics import finite
from dcft_cli.tasks.questions import prepare_questions
from dcft_cli.tasks.squad import score_answers
from dcft_cli.tasks.windows import (
    answer_tokens,
    check_windows,
    cls_index,
    context_tokens,
    encode_windows,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedTokenizerBase

Logits = tuple[NDArray[Any], NDArray[Any]]
"""Start and end logits, each (windows, longest input)."""

_WINDOW_COLUMNS = ["row", "cls", "first", "spans"]


class QuestionAnswering(Task):
    """Finds the answer to a question in a context, or that there is none.

    Prepared rows have the columns of SQuAD: `id`, `question`, `context`, `answers`.

    Args:
        text: names of the question and context columns.
        answers: name of the answers column.
        metrics: of those that `squad.score_answers` gives; the first is the main one.
        max_length: longest window in tokens.
        document_stride: tokens that neighbouring windows of one context share.
        null_threshold: lead from which on "no answer" is given; None where every question must
            have an answer.
        n_best: start and end candidates looked at per window.
        max_answer_length: longest answer in tokens.
    """

    kind = "question_answering"
    auto_class = "AutoModelForQuestionAnswering"
    group_column = "context"

    def __init__(
        self,
        *,
        text: tuple[str, str],
        answers: str,
        metrics: Sequence[str],
        max_length: int,
        document_stride: int,
        null_threshold: float | None,
        n_best: int,
        max_answer_length: int,
    ) -> None:
        self.question, self.context = text
        self.answers = answers
        self.metrics = tuple(metrics)
        self.max_length = max_length
        self.document_stride = document_stride
        self.null_threshold = null_threshold
        self.n_best = n_best
        self.max_answer_length = max_answer_length

    @property
    def model_settings(self) -> Mapping[str, Any]:
        """See `Task.model_settings`: two outputs, start and end, are every model's default."""
        return {}

    def prepare(self, rows: Rows) -> Dataset:
        """See `Task.prepare`."""
        return prepare_questions(
            rows,
            self.question,
            self.context,
            self.answers,
            unanswerable=self.null_threshold is not None,
        )

    def check_training(self, rows: RowSet) -> None:
        """See `Task.check_training`: any question teaches something."""

    def _windows(
        self, batch: Mapping[str, list[Any]], tokenizer: "PreTrainedTokenizerBase"
    ) -> "BatchEncoding":
        return encode_windows(
            batch["question"], batch["context"], tokenizer, self.max_length, self.document_stride
        )

    def encode_training(self, dataset: Dataset, tokenizer: "PreTrainedTokenizerBase") -> Dataset:
        """See `Task.encode_training`; the targets are `start_positions` and `end_positions`.

        They are those of the first reference answer. A window that does not hold all of it points
        at the token that stands for "no answer".

        Raises:
            ModelError: a tokenizer that is not a fast one.
            RecipeError: `document_stride` and `max_length` do not fit together.
        """
        check_windows(tokenizer, self.max_length, self.document_stride)

        def encode(batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
            encoded = self._windows(batch, tokenizer)
            targets = [
                _target(encoded, window, batch["answers"][row], tokenizer)
                for window, row in enumerate(encoded["overflow_to_sample_mapping"])
            ]
            return _inputs(encoded) | {
                "start_positions": [start for start, _ in targets],
                "end_positions": [end for _, end in targets],
            }

        settings = ("answers", self.max_length, self.document_stride)
        return encode_rows(dataset, encode, tokenizer, settings)

    def evaluation_set(
        self, name: str, dataset: Dataset, tokenizer: "PreTrainedTokenizerBase"
    ) -> EvaluationSet:
        """See `Task.evaluation_set`; raises as `encode_training` does."""
        check_windows(tokenizer, self.max_length, self.document_stride)

        def encode(batch: Mapping[str, list[Any]], rows: list[int]) -> dict[str, list[Any]]:
            encoded = self._windows(batch, tokenizer)
            places = [
                context_tokens(encoded, window) for window in range(len(encoded["input_ids"]))
            ]
            return _inputs(encoded) | {
                "row": [rows[row] for row in encoded["overflow_to_sample_mapping"]],
                "cls": [cls_index(ids, tokenizer) for ids in encoded["input_ids"]],
                "first": [first for first, _ in places],
                "spans": [spans.reshape(-1) for _, spans in places],
            }

        settings = ("windows", self.max_length, self.document_stride)
        encoded = encode_rows(dataset, encode, tokenizer, settings, with_indices=True)
        encoded = longest_first(encoded)
        windows = [
            Window(window["row"], window["cls"], window["first"], window["spans"].reshape(-1, 2))
            for window in encoded.select_columns(_WINDOW_COLUMNS).with_format("numpy")
        ]
        contexts, ids = dataset["context"][:], dataset["id"][:]
        references = [answers["text"] for answers in dataset["answers"][:]]

        def answer(predictions: Logits) -> list[Answer]:
            start, end = map(finite, predictions)
            return decode(start, end, windows, contexts, self.n_best, self.max_answer_length)

        def score(predictions: Logits, label_ids: object = None) -> dict[str, float]:
            return score_answers(answer(predictions), references, self.null_threshold)

        def by_id(predictions: Logits) -> dict[str, Answer]:
            return dict(zip(ids, answer(predictions), strict=True))

        def constant_scores(logits: object) -> dict[str, float]:
            silent = [Answer("", 0.0)] * len(references)
            return score_answers(silent, references, self.null_threshold)

        def failure(predictions: Logits) -> str:
            return ""  # answers to different questions are never the same

        features = encoded.remove_columns(_WINDOW_COLUMNS)
        return EvaluationSet(name, features, score, constant_scores, failure, by_id)

    def linear_examples(
        self, features: "Tensor", batch: Mapping[str, "Tensor"]
    ) -> "tuple[Tensor, dict[str, Tensor]]":
        """See `Task.linear_examples`: windows, padded to `max_length`."""
        import torch
        from torch.nn.functional import pad

        missing = self.max_length - features.shape[1]
        real = batch.get("attention_mask", torch.ones(features.shape[:2], device=features.device))
        return pad(features, (0, 0, 0, missing)), {
            "start": batch["start_positions"],
            "end": batch["end_positions"],
            "real": pad(real.bool(), (0, missing)),
        }

    def linear_loss(self, logits: "Tensor", targets: Mapping[str, "Tensor"]) -> "Tensor":
        """See `Task.linear_loss`."""
        from torch.nn.functional import cross_entropy

        logits = logits.masked_fill(~targets["real"].unsqueeze(-1), float("-inf"))
        start, end = logits.unbind(-1)
        return (cross_entropy(start, targets["start"]) + cross_entropy(end, targets["end"])) / 2


def _inputs(encoded: "BatchEncoding") -> dict[str, list[Any]]:
    """The model's inputs alone, and their lengths."""
    others = ("offset_mapping", "overflow_to_sample_mapping")
    inputs = {name: values for name, values in encoded.items() if name not in others}
    return inputs | {"length": [len(ids) for ids in encoded["input_ids"]]}


def _target(
    encoded: "BatchEncoding",
    window: int,
    answers: Mapping[str, list[Any]],
    tokenizer: "PreTrainedTokenizerBase",
) -> tuple[int, int]:
    """First and last token of the answer in a window, or twice that of "no answer"."""
    if answers["text"]:
        text = answers["text"][0]
        start = answers["answer_start"][0] + len(text) - len(text.lstrip())
        first, spans = context_tokens(encoded, window)
        found = answer_tokens(spans, start, start + len(text.strip()))
        if found is not None:
            return first + found[0], first + found[1]
    cls = cls_index(encoded["input_ids"][window], tokenizer)
    return cls, cls
