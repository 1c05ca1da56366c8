"""Characters of a context that make no token: combining accents, control characters and others.

Tokenizers that strip accents drop a combining accent, but not an accented letter in one character,
so the same text in two Unicode forms has different gaps between its tokens. An answer that the
model gives ends where its last token ends; these characters are part of it too.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray


def dropped_characters(context: str, spans: Iterable[NDArray[np.int64]]) -> set[int]:
    """Return the indices of the characters that no token covers, except white space.

    Args:
        spans: of the tokens of every window of the context, (tokens, 2) each.
    """
    covered = np.zeros(len(context), dtype=bool)
    for window in spans:
        edges = np.zeros(len(context) + 1, dtype=np.int64)
        np.add.at(edges, window[:, 0], 1)
        np.add.at(edges, window[:, 1], -1)
        covered |= edges[:-1].cumsum() > 0
    return {int(place) for place in np.flatnonzero(~covered) if not context[place].isspace()}


def bare_span(text: str, offset: int, dropped: Set[int]) -> tuple[int, int]:
    """Return the characters of an answer without white space and dropped characters at its ends.

    Args:
        text: of the answer, which begins at `offset`.
        dropped: of `dropped_characters`.
    """
    kept = [
        offset + place
        for place, character in enumerate(text)
        if not character.isspace() and offset + place not in dropped
    ]
    return (kept[0], kept[-1] + 1) if kept else (offset, offset)


def whole_span(context: str, span: tuple[int, int], dropped: Set[int]) -> tuple[int, int]:
    """Extend a span over the dropped characters that belong to its ends.

    They belong to the character before them, as an accent does, or if that is white space or
    nothing, to the one after them.

    Args:
        span: starts and ends with characters that are not dropped.
    """
    start, end = span
    while end in dropped:
        end += 1
    first = start
    while first - 1 in dropped:
        first -= 1
    if first == 0 or context[first - 1].isspace():
        start = first
    return start, end


def whole_answers(
    answers: Mapping[str, Sequence[Any]], context: str, dropped: Set[int]
) -> list[str]:
    """Return the texts of reference answers, with the dropped characters that belong to them.

    A reference is then the same text as the answer of a model that has found its tokens.

    Args:
        answers: `text` and `answer_start` of each reference.
    """
    if not dropped:
        return list(answers["text"])
    texts = []
    for text, offset in zip(answers["text"], answers["answer_start"], strict=True):
        bare = bare_span(text, offset, dropped)
        start, end = whole_span(context, bare, dropped)
        texts.append(context[start:end] if bare[0] < bare[1] else text)
    return texts
