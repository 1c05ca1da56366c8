"""From start and end logits to answers: the best span of each question, and "no answer".

As in the reference decoding for SQuAD (Devlin et al. 2019, arXiv 1810.04805, sections 4.2 and
4.3): a span scores its start logit plus its end logit, "no answer" scores those of the [CLS]
token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """What decoding needs to know of one input: a question with a stretch of its context.

    Attributes:
        question: number of the question.
        cls: index of the token that stands for "no answer".
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
        text: the best span; empty only where no span could be formed.
        no_answer_score: by how much "no answer" scores above `text`.
    """

    text: str
    no_answer_score: float

    def given(self, null_threshold: float) -> str:
        """The answer given: `text`, or nothing where "no answer" leads by more."""
        return "" if self.no_answer_score > null_threshold else self.text


def decode(
    start_logits: NDArray[Any],
    end_logits: NDArray[Any],
    windows: Sequence[Window],
    contexts: Sequence[str],
    n_best: int,
    max_answer_length: int,
) -> list[Answer]:
    """Answers every question from the logits of its windows.

    Args:
        start_logits: (windows, longest input); what lies beyond a window's own tokens is not
            looked at.
        end_logits: as `start_logits`.
        windows: at least one for every question.
        contexts: of every question, by its number.
        n_best: start and end candidates looked at per window.
        max_answer_length: longest answer in tokens.
    """
    texts = [""] * len(contexts)
    best = np.full(len(contexts), -np.inf)
    null = np.full(len(contexts), np.inf)
    for window, start, end in zip(windows, start_logits, end_logits, strict=True):
        question = window.question
        # The window that is surest of an answer speaks for all: most do not hold it.
        null[question] = min(null[question], start[window.cls] + end[window.cls])
        tokens = slice(window.first, window.first + len(window.spans))
        span = _best_span(start[tokens], end[tokens], n_best, max_answer_length)
        if span is not None and span[0] > best[question]:
            score, first, last = span
            best[question] = score
            characters = slice(window.spans[first, 0], window.spans[last, 1])
            # Some tokenizers count the space before a word as part of its token.
            texts[question] = contexts[question][characters].strip()
    # Without any span the answer is empty whatever the threshold: 0 keeps the number finite.
    lead = np.where(np.isfinite(best), null - best, 0.0)
    return [Answer(text, float(score)) for text, score in zip(texts, lead, strict=True)]


def _best_span(
    start: NDArray[Any], end: NDArray[Any], n_best: int, max_length: int
) -> tuple[float, int, int] | None:
    """Score, first and last token of the best span among the candidates; None if there is none.

    Args:
        start: logits of the context tokens, (tokens,).
        end: as `start`.
        n_best: number of candidates.
        max_length: longest span in tokens.
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
