"""Overlapping windows of tokens over questions with long contexts."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcft_cli.data.token_cache import Encoding, Tokenizer
from dcft_cli.errors import RecipeError
from dcft_cli.tasks.question_answering.characters import bare_span

MAX_QUESTION_TOKENS = 64
"""Longer questions are cut, as in BERT's reference script for SQuAD."""


def max_question_tokens(max_length: int) -> int:
    """Return the longest question in tokens, which leaves half a short window to the context."""
    return min(MAX_QUESTION_TOKENS, max_length // 2)


def check_windows(tokenizer: Tokenizer, max_length: int, document_stride: int) -> None:
    """Check, before anything is encoded, that windows can advance through their context.

    Raises:
        RecipeError: after the longest question, `document_stride` leaves no new token to the
            next window.
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)
    question = max_question_tokens(max_length)
    size = max_length - special - question
    if document_stride >= size:
        raise RecipeError(
            f"data.document_stride: {document_stride} does not fit data.max_length: {max_length}."
            f" After a question of {question} tokens and {special} special tokens a window holds"
            f" {max(size, 0)} tokens of context, and must share fewer with its neighbor.",
            f"Set data.document_stride={size // 2}, or a larger data.max_length."
            if size > 1
            else "Usual values: data.max_length=384 data.document_stride=128.",
        )


def encode_windows(
    questions: Sequence[str],
    contexts: Sequence[str],
    tokenizer: Tokenizer,
    max_length: int,
    document_stride: int,
) -> Encoding:
    """Encode each question with its context, in as many windows as the context needs.

    The encoding also has `offset_mapping`, the characters that each token covers, and
    `overflow_to_sample_mapping`, the question of each window.

    Args:
        questions: cut to `max_question_tokens`.
        contexts: one per question.
        tokenizer: checked by `check_windows`, as are the lengths.
        max_length: longest window, in tokens.
        document_stride: tokens of the context that neighboring windows share.
    """
    encoded: Encoding = tokenizer(
        _cut(questions, tokenizer, max_question_tokens(max_length)),
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=document_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    return encoded


def _cut(questions: Sequence[str], tokenizer: Tokenizer, limit: int) -> list[str]:
    # Stripped: SQuAD v2.0 has a question that is almost nothing but leading spaces.
    stripped = [question.strip() for question in questions]
    # Not by truncation=True, which cuts on the left if the tokenizer is set so.
    encoded = tokenizer(
        stripped, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    return [
        question[: spans[limit - 1][1]] if len(spans) > limit else question
        for question, spans in zip(stripped, encoded["offset_mapping"], strict=True)
    ]


def context_tokens(encoded: Encoding, window: int) -> tuple[int, NDArray[np.int64]]:
    """Locate the context in a window.

    The encoding's sequence ids are right for any arrangement of special tokens, and for models
    without token types.

    Returns:
        The index of the first context token, and the characters of the context that each
        context token covers, (context tokens, 2).
    """
    sequences = encoded.sequence_ids(window)
    count = sequences.count(1)
    first = sequences.index(1) if count else 0
    spans = encoded["offset_mapping"][window][first : first + count]
    return first, np.asarray(spans, dtype=np.int64).reshape(-1, 2)


def cls_index(input_ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """Return the index of the "no answer" token: [CLS], or the first token if there is none."""
    cls = tokenizer.cls_token_id
    return input_ids.index(cls) if cls is not None and cls in input_ids else 0


def answer_span(
    answers: Mapping[str, Sequence[Any]],
    context: tuple[int, NDArray[np.int64]],
    cls: int,
    dropped: Set[int] = frozenset(),
) -> tuple[int, int]:
    """Return the first and last token of the first answer in a window.

    Args:
        answers: `text` and `answer_start` of each reference, none if there is no answer.
        context: of `context_tokens`.
        cls: returned twice if the window does not contain all of the answer.
        dropped: of `dropped_characters`.
    """
    first, spans = context
    if answers["text"]:
        start, end = bare_span(answers["text"][0], answers["answer_start"][0], dropped)
        (covering,) = np.nonzero((spans[:, 0] < end) & (spans[:, 1] > start))
        if covering.size and spans[0, 0] <= start and end <= spans[-1, 1]:
            return first + int(covering[0]), first + int(covering[-1])
    return cls, cls
