"""Windows of tokens over the words of sentences, such that every word counts exactly once.

A sentence that is longer than `max_length` is split into overlapping windows, between words. Each
word counts in one of them, in the loss and in the scores: where most of its context is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class WordWindow:
    """One input of the model.

    Attributes:
        sentence: its index.
        inputs: the model's inputs, by name.
        words: indices of the words that count in this window.
        tokens: index of the first token of each of these words.
    """

    sentence: int
    inputs: dict[str, list[Any]]
    words: list[int]
    tokens: list[int]


def encode_words(
    sentences: Sequence[Sequence[str]],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    stride: int,
) -> list[WordWindow]:
    """Encode sentences; words and sentences that yield no tokens are in no window.

    Args:
        sentences: the words of each.
        tokenizer: a fast one.
        max_length: longest window in tokens. Of a longer word the first tokens are kept.
        stride: tokens that neighboring windows share; at most half a window.
    """
    prefix = " " if _needs_spaces(tokenizer) else ""
    indices = [index for index, words in enumerate(sentences) if words]
    if not indices:
        return []
    encoded = tokenizer(
        [[prefix + word for word in sentences[index]] for index in indices],
        is_split_into_words=True,
        verbose=False,  # no warning about inputs that are too long for the model
    )
    found = []
    for row, index in enumerate(indices):
        inputs = {name: values[row] for name, values in encoded.items()}
        word_ids = encoded.word_ids(row)
        found += _windows(index, len(sentences[index]), inputs, word_ids, max_length, stride)
    return found


def _windows(
    sentence: int,
    words: int,
    inputs: dict[str, list[Any]],
    word_ids: Sequence[int | None],
    max_length: int,
    stride: int,
) -> list[WordWindow]:
    own = [token for token, word in enumerate(word_ids) if word is not None]
    if not own:
        return []
    before, after = own[0], own[-1] + 1  # special tokens surround the words
    size = max_length - before - (len(word_ids) - after)
    counts = np.bincount([word for word in word_ids if word is not None], minlength=words)
    starts = np.cumsum(counts) - counts
    spans = plan_windows(np.minimum(counts, size), size, min(stride, size // 2))
    windows = []
    for (first, end), counted in zip(spans, assign_words(counts, spans), strict=True):
        start = before + int(starts[first])
        stop = min(before + int(starts[end - 1] + counts[end - 1]), start + size)
        window = {
            name: values[:before] + values[start:stop] + values[after:]
            for name, values in inputs.items()
        }
        tokens = [before + int(starts[word] - starts[first]) for word in counted]
        windows.append(WordWindow(sentence, window, counted, tokens))
    return [window for window in windows if window.words]


def plan_windows(counts: Counts, size: int, stride: int) -> list[tuple[int, int]]:
    """Return the windows as ranges of words: the first, and the one after the last.

    Args:
        counts: tokens of each word, at most `size`.
        size: tokens of a window.
        stride: tokens that a window shares with the one before, as far as words allow.
    """
    ends = np.cumsum(counts)
    windows, first = [], 0
    while True:
        start = ends[first] - counts[first]
        stop = int(np.searchsorted(ends, start + size, side="right"))
        windows.append((first, stop))
        if stop == len(counts):
            return windows
        # The next word must fit after the shared ones, or the windows would not advance.
        shared = min(stride, size - int(counts[stop]))
        first = int(np.searchsorted(ends - counts, ends[stop - 1] - shared, side="left"))


def assign_words(counts: Counts, windows: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the words that count in each window: those with more context there than elsewhere.

    The context of a word is the number of tokens up to the nearer end of the window. Words
    without tokens count in no window.
    """
    ends = np.cumsum(counts)
    starts = ends - counts
    chosen = np.full(len(counts), -1, dtype=np.int64)
    best = np.full(len(counts), -1, dtype=np.int64)
    for window, (first, stop) in enumerate(windows):
        left = starts[first:stop] - starts[first]
        right = ends[stop - 1] - ends[first:stop]
        context = np.where(counts[first:stop] > 0, np.minimum(left, right), -1)
        better = first + np.flatnonzero(context > best[first:stop])
        best[better] = context[better - first]
        chosen[better] = window
    return [np.flatnonzero(chosen == window).tolist() for window in range(len(windows))]


def _needs_spaces(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Return whether words must be prefixed with a space to be encoded as in running text.

    To byte-level tokenizers (RoBERTa, GPT-2) the space is part of the word; without it a list of
    words would be encoded as one long word. Tokenizers that know add_prefix_space=True do the
    same by themselves.
    """
    text = tokenizer("a a", add_special_tokens=False)["input_ids"]
    words = tokenizer(["a", "a"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    return bool(text != words)
