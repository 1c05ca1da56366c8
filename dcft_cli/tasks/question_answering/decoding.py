"""From start and end logits to answers: the best span for each question, and "no answer".

As in the reference decoding for SQuAD (Devlin et al. 2019, arXiv 1810.04805, sections 4.2 and
4.3): the score of a span is its start logit plus its end logit, and the score of "no answer" is
that of the [CLS] token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """One input as decoding needs it: a question with a part of its context.

    Attributes:
        question: index of the question.
        cls: index of the "no answer" token.
        first: index of the first context token.
        spans: characters of the context that each context token covers, (context tokens, 2).
    """

    question: int
    cls: int
    first: int
    spans: NDArray[np.int64]


@dataclass(frozen=True)
class Answer:
    """The model's answer to one question.

    Attributes:
        text: the best span; empty only if there is no span.
        no_answer_score: score of "no answer" minus that of `text`.
        start: character of the context at which `text` starts; None if there is no span.
    """

    text: str
    no_answer_score: float
    start: int | None = None


def decode(
    start_logits: NDArray[Any],
    end_logits: NDArray[Any],
    windows: Sequence[Window],
    contexts: Sequence[str],
    n_best: int,
    max_answer_length: int,
) -> list[Answer]:
    """Answer every question from the logits of its windows.

    Args:
        start_logits: (windows, longest input); padding is ignored.
        end_logits: like `start_logits`.
        windows: at least one for every question.
        contexts: of every question, by its index.
        n_best: start and end candidates per window.
        max_answer_length: longest answer in tokens.
    """
    texts = [""] * len(contexts)
    starts: list[int | None] = [None] * len(contexts)
    best = np.full(len(contexts), -np.inf)
    null = np.full(len(contexts), np.inf)
    for window, start, end in zip(windows, start_logits, end_logits, strict=True):
        question = window.question
        # The minimum, since most windows of a question do not contain the answer.
        null[question] = min(null[question], start[window.cls] + end[window.cls])
        tokens = slice(window.first, window.first + len(window.spans))
        span = _best_span(start[tokens], end[tokens], n_best, max_answer_length)
        if span is not None and span[0] > best[question]:
            score, first, last = span
            best[question] = score
            begin, end = window.spans[first, 0], window.spans[last, 1]
            # Some tokenizers count the space before a word as part of its token.
            bare = contexts[question][begin:end].lstrip()
            texts[question], starts[question] = bare.rstrip(), int(end - len(bare))
    # Without a span the answer is empty for any threshold; 0 keeps the number finite.
    lead = np.where(np.isfinite(best), null - best, 0.0)
    return [Answer(*answer) for answer in zip(texts, lead.tolist(), starts, strict=True)]


def _best_span(
    start: NDArray[Any], end: NDArray[Any], n_best: int, max_length: int
) -> tuple[float, int, int] | None:
    """Return score, first and last token of the best span; None if there is no valid one.

    `start` and `end` are the logits of the context tokens, (tokens,).
    """
    starts = np.argsort(-start, kind="stable")[:n_best]
    ends = np.argsort(-end, kind="stable")[:n_best]
    lengths = ends[None, :] - starts[:, None] + 1
    scores = np.where(
        (lengths >= 1) & (lengths <= max_length), start[starts][:, None] + end[ends], -np.inf
    )
    if not np.isfinite(scores).any():
        return None
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    return float(scores[row, column]), int(starts[row]), int(ends[column])
