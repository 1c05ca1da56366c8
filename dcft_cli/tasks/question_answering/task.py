"""Question answering as a task."""

import math
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from dcft_cli.data.evaluation_set import EvaluationSet
from dcft_cli.data.prediction_set import Prediction, PredictionSet, shortened, sort_by_length
from dcft_cli.data.rows import Rows
from dcft_cli.data.token_cache import Encode, Tokenizer, encode_rows
from dcft_cli.errors import RecipeError
from dcft_cli.recipe.schema import DataSection, TaskSection
from dcft_cli.tasks.base import Task, Tensor, longest_first
from dcft_cli.tasks.decision import Decision
from dcft_cli.tasks.known import known_task
from dcft_cli.tasks.metrics import require_finite
from dcft_cli.tasks.question_answering.characters import (
    dropped_characters,
    whole_answers,
    whole_span,
)
from dcft_cli.tasks.question_answering.decoding import Answer, Window, decode
from dcft_cli.tasks.question_answering.rows import prepare_questions
from dcft_cli.tasks.question_answering.scoring import best_null_threshold, score_answers
from dcft_cli.tasks.question_answering.windows import (
    answer_span,
    check_windows,
    cls_index,
    context_tokens,
    encode_windows,
)

if TYPE_CHECKING:
    from dcft_cli.targets.gradients import Loss

Logits = tuple[NDArray[Any], NDArray[Any]]
"""Start and end logits, each (windows, longest input)."""

_NOT_INPUTS = ("offset_mapping", "overflow_to_sample_mapping")
_WINDOW_COLUMNS = ["row", "cls", "first", "spans", "dropped"]


class QuestionAnswering(Task):
    """Find the answer to a question in a context, or that there is none.

    Prepared rows have the columns of SQuAD: `question`, `context`, `answers`.
    """

    kind = "question_answering"
    auto_class = "AutoModelForQuestionAnswering"
    group_column = "context"
    target_column = "answers"
    has_classes = False
    own_settings = ("unanswerable", "null_threshold", "n_best", "max_answer_length")
    choosable = ("null_threshold",)
    needs_offsets = True
    default_text = ("question", "context")
    default_label = "answers"
    predicted_columns = ("prediction", "start", "end", "score")

    def __init__(self, task: TaskSection, data: DataSection, labels: Sequence[str] = ()) -> None:
        super().__init__(task, data, labels)
        known = known_task(task.name)
        unanswerable = task.unanswerable or (known is not None and known.unanswerable)
        best = ("best_f1", "best_exact_match") if unanswerable else ()
        self.metrics = ("f1", "exact_match", *best)
        given = 0.0 if isinstance(task.null_threshold, str) else task.null_threshold
        if unanswerable:
            self.decision = Decision(null_threshold=given)
        elif self.chosen:
            raise RecipeError(
                "task.null_threshold=best needs questions without an answer.",
                "Set task.unanswerable=true if the data has them.",
            )
        self.document_stride = data.document_stride
        self.n_best = task.n_best
        self.max_answer_length = task.max_answer_length

    @property
    def model_settings(self) -> dict[str, Any]:
        """See `Task.model_settings`: the outputs are a start and an end logit."""
        return super().model_settings | {"num_labels": 2}

    @property
    def null_threshold(self) -> float | None:
        """Lead from which "no answer" is given; None if every question must have an answer."""
        return self.decision.null_threshold

    def prepare(self, rows: Rows) -> Dataset:
        """See `Task.prepare`."""
        unanswerable = self.null_threshold is not None
        return prepare_questions(rows, *self.text, *self.label, unanswerable=unanswerable)

    def prepare_inputs(self, rows: Rows) -> Dataset:
        """See `Task.prepare_inputs`."""
        question, context = map(rows.texts, self.text)
        rows.raise_problems()
        return Dataset.from_dict({"question": question, "context": context})

    def describe_target(self, target: Mapping[str, list[str]]) -> list[str]:
        """See `Task.describe_target`: the texts of the reference answers."""
        return target["text"]

    def encode_training(self, dataset: Dataset, tokenizer: Tokenizer) -> Dataset:
        """See `Task.encode_training`; the targets are `start_positions` and `end_positions`.

        They are those of the first reference answer. In a window that does not contain all of it,
        they point at the "no answer" token.

        Raises:
            RecipeError: `document_stride` and `max_length` do not fit together.
        """
        return self._encode(dataset, tokenizer, targets=True)

    def evaluation_set(self, name: str, dataset: Dataset, tokenizer: Tokenizer) -> EvaluationSet:
        """See `Task.evaluation_set`; raises the errors of `encode_training`."""
        encoded = longest_first(self._encode(dataset, tokenizer, targets=False))
        windows = _windows(encoded.with_format("numpy"))
        contexts = dataset["context"][:]
        dropped = dict(zip(encoded["row"], map(set, encoded["dropped"]), strict=True))
        references = [
            whole_answers(answers, context, dropped[row])
            for row, (answers, context) in enumerate(zip(dataset["answers"], contexts, strict=True))
        ]

        def decoded(predictions: Logits) -> list[Answer]:
            return self._answers(predictions, windows, contexts)

        def score(predictions: Logits, label_ids: object = None) -> dict[str, float]:
            return score_answers(decoded(predictions), references, self.null_threshold)

        def choose(predictions: Logits) -> None:
            if self.chosen:
                best = best_null_threshold(decoded(predictions), references)
                self.decision = Decision(null_threshold=best)

        def constant_scores(logits: object) -> dict[str, float]:
            empty = [Answer("", 0.0)] * len(references)
            return score_answers(empty, references, self.null_threshold)

        features = encoded.remove_columns(_WINDOW_COLUMNS)
        return EvaluationSet(name, features, score, constant_scores, choose=choose)

    def prediction_set(self, dataset: Dataset, tokenizer: Tokenizer) -> PredictionSet:
        """See `Task.prediction_set`; raises RecipeError as `encode_training` does."""
        inputs = {name: dataset[name][:] for name in ("question", "context")}
        encoded = self._encoder(tokenizer, targets=False)(inputs, range(len(dataset)))
        features, _ = sort_by_length(encoded)
        windows = _windows(features)
        rows = np.array([window.question for window in windows])
        limit = math.inf if self.null_threshold is None else self.null_threshold

        def predict(outputs: Logits) -> list[Prediction]:
            found = []
            for answer in self._answers(outputs, windows, inputs["context"]):
                start = answer.start if answer.no_answer_score <= limit else None
                found.append(
                    {
                        "prediction": "" if start is None else answer.text,
                        "start": start,
                        "end": None if start is None else start + len(answer.text),
                        "score": shortened(0.0 - answer.no_answer_score),
                    }
                )
            return found

        for name in _WINDOW_COLUMNS:
            del features[name]
        return PredictionSet(features, rows, predict)

    def linear_examples(
        self, features: Tensor, batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Task.linear_examples`: windows, padded to `max_length` with zeros."""
        import torch
        from torch.nn.functional import pad

        missing = self.max_length - features.shape[1]
        mask = batch.get("attention_mask", torch.ones(features.shape[:2], device=features.device))
        own = features.masked_fill(~mask.bool().unsqueeze(-1), 0)  # nothing of a batch's padding
        return pad(own, (0, 0, 0, missing)), {
            "start": batch["start_positions"],
            "end": batch["end_positions"],
            "mask": pad(mask.bool(), (0, missing)),
        }

    @property
    def training_loss(self) -> "Loss":
        """Return `loss`: the models' own includes padding, and so depends on a batch's rows."""
        return self.loss

    def loss(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Tensor:
        """See `Task.loss`: the cross entropy of start and end, over the tokens of each window."""
        import torch

        logits = torch.stack((outputs["start_logits"], outputs["end_logits"]), -1)
        return self.linear_loss(*self.linear_examples(logits, batch))

    def linear_loss(self, logits: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """See `Task.linear_loss`."""
        from torch.nn.functional import cross_entropy

        logits = logits.masked_fill(~targets["mask"].unsqueeze(-1), float("-inf"))
        start, end = logits.unbind(-1)
        return (cross_entropy(start, targets["start"]) + cross_entropy(end, targets["end"])) / 2

    def _answers(
        self, outputs: Logits, windows: Sequence[Window], contexts: Sequence[str]
    ) -> list[Answer]:
        start, end = map(require_finite, outputs)
        return decode(start, end, windows, contexts, self.n_best, self.max_answer_length)

    def _encode(self, dataset: Dataset, tokenizer: Tokenizer, *, targets: bool) -> Dataset:
        settings = ("answers" if targets else "windows", self.max_length, self.document_stride)
        encode = self._encoder(tokenizer, targets=targets)
        return encode_rows(dataset, encode, tokenizer, settings)

    def _encoder(self, tokenizer: Tokenizer, *, targets: bool) -> Encode:
        """Return the function that encodes questions as windows.

        Its columns are the model's inputs, with either the targets or what decoding needs.
        """
        lengths = self.max_length, self.document_stride
        check_windows(tokenizer, *lengths)

        def encode(batch: Mapping[str, list[Any]], rows: Sequence[int]) -> dict[str, list[Any]]:
            encoded = encode_windows(batch["question"], batch["context"], tokenizer, *lengths)
            questions = encoded["overflow_to_sample_mapping"]
            cls = [cls_index(ids, tokenizer) for ids in encoded["input_ids"]]
            contexts = [context_tokens(encoded, window) for window in range(len(questions))]
            columns: dict[str, list[Any]] = {
                name: values for name, values in encoded.items() if name not in _NOT_INPUTS
            }
            columns["length"] = [len(ids) for ids in encoded["input_ids"]]
            spans_of: list[list[NDArray[np.int64]]] = [[] for _ in rows]
            for question, (_, spans) in zip(questions, contexts, strict=True):
                spans_of[question].append(spans)
            dropped = list(map(dropped_characters, batch["context"], spans_of))
            if targets:
                answers = [batch["answers"][question] for question in questions]
                missing = [dropped[question] for question in questions]
                found = list(map(answer_span, answers, contexts, cls, missing))
                columns["start_positions"] = [start for start, _ in found]
                columns["end_positions"] = [end for _, end in found]
            else:
                columns["row"] = [rows[question] for question in questions]
                columns["cls"] = cls
                columns["first"] = [first for first, _ in contexts]
                columns["spans"] = [
                    _whole_spans(batch["context"][question], spans, dropped[question]).reshape(-1)
                    for question, (_, spans) in zip(questions, contexts, strict=True)
                ]
                columns["dropped"] = [
                    np.array(sorted(dropped[question]), dtype=np.int64) for question in questions
                ]
            return columns

        return encode


def _whole_spans(context: str, spans: NDArray[np.int64], dropped: Set[int]) -> NDArray[np.int64]:
    """Return the characters of tokens (tokens, 2), with the dropped ones that belong to them."""
    if not dropped:
        return spans
    whole = [whole_span(context, (start, end), dropped) for start, end in spans.tolist()]
    return np.array(whole, dtype=np.int64).reshape(-1, 2)


def _windows(encoded: Any) -> list[Window]:
    """Return what decoding needs of each window, from columns."""
    columns = (encoded[name][:] for name in _WINDOW_COLUMNS)
    return [
        Window(row, cls, first, np.asarray(spans, np.int64).reshape(-1, 2))
        for row, cls, first, spans, _ in zip(*columns, strict=True)
    ]
