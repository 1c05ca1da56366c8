"""Words of sentences as inputs of the model: windows of tokens that lose no word.

A sentence that is longer than `max_length` goes into several overlapping windows, cut between
words. Each word counts in one of them, where most of its neighbours are: once in the loss, once
in the scores.
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
        sentence: number of the sentence.
        inputs: the model's inputs, by name.
        words: numbers of the words that count here.
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
    """Encodes sentences; what has no token at all (a word, a sentence) is in no window.

    Args:
        sentences: words of each.
        tokenizer: a fast one.
        max_length: longest window in tokens. Of a word that is longer the first tokens are kept.
        stride: tokens that neighbouring windows share; half of a window at most.
    """
    blank = " " if _wants_blanks(tokenizer) else ""
    numbers = [number for number, words in enumerate(sentences) if words]
    if not numbers:
        return []
    encoded = tokenizer(
        [[blank + word for word in sentences[number]] for number in numbers],
        is_split_into_words=True,
        verbose=False,  # about inputs that are too long for the model
    )
    found = []
    for index, number in enumerate(numbers):
        inputs = {name: values[index] for name, values in encoded.items()}
        word_of_token = encoded.word_ids(index)
        found += _windows(number, len(sentences[number]), inputs, word_of_token, max_length, stride)
    return found


def _windows(
    sentence: int,
    words: int,
    inputs: dict[str, list[Any]],
    word_of_token: Sequence[int | None],
    max_length: int,
    stride: int,
) -> list[WordWindow]:
    own = [token for token, word in enumerate(word_of_token) if word is not None]
    if not own:
        return []
    before, after = own[0], own[-1] + 1  # what stands outside are special tokens
    room = max_length - before - (len(word_of_token) - after)
    counts = np.bincount([w for w in word_of_token if w is not None], minlength=words)
    starts = np.cumsum(counts) - counts
    spans = plan_windows(np.minimum(counts, room), room, min(stride, room // 2))
    windows = []
    for span, home in zip(spans, words_at_home(counts, spans), strict=True):
        start = before + int(starts[span[0]])
        stop = min(before + int(starts[span[1] - 1] + counts[span[1] - 1]), start + room)
        cut = {
            name: values[:before] + values[start:stop] + values[after:]
            for name, values in inputs.items()
        }
        tokens = [before + int(starts[word] - starts[span[0]]) for word in home]
        windows.append(WordWindow(sentence, cut, home, tokens))
    return [window for window in windows if window.words]


def plan_windows(counts: Counts, room: int, stride: int) -> list[tuple[int, int]]:
    """First word of each window, and the word that follows its last.

    Args:
        counts: tokens of each word, at most `room`.
        room: tokens of a window.
        stride: tokens that a window shares with the one before, as far as words allow.
    """
    ends = np.cumsum(counts)
    windows, first = [], 0
    while True:
        begun = ends[first] - counts[first]
        stop = int(np.searchsorted(ends, begun + room, side="right"))
        windows.append((first, stop))
        if stop == len(counts):
            return windows
        # The next word must fit behind what is shared, or no window would get any further.
        shared = min(stride, room - int(counts[stop]))
        first = int(np.searchsorted(ends - counts, ends[stop - 1] - shared, side="left"))


def words_at_home(counts: Counts, windows: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The words that count in each window: those that have more neighbours there than elsewhere.

    What counts is the number of tokens up to the nearer end of the window. Words without tokens
    are in none.
    """
    ends = np.cumsum(counts)
    starts = ends - counts
    home = np.zeros(len(counts), dtype=np.int64)
    best = np.full(len(counts), -1, dtype=np.int64)
    for number, (first, stop) in enumerate(windows):
        words = np.arange(first, stop)
        reach = np.minimum(starts[words] - starts[first], ends[stop - 1] - ends[words])
        better = words[reach > best[words]]
        best[better] = reach[reach > best[words]]
        home[better] = number
    there = np.flatnonzero(counts)
    return [there[home[there] == number].tolist() for number in range(len(windows))]


def _wants_blanks(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether a word looks to the tokenizer as within a text only with a blank before it.

    Byte-level tokenizers (RoBERTa, GPT-2) take the blank for a part of the word. Without it a
    list of words would be encoded as the middle of one long word; add_prefix_space=True means
    the same for tokenizers that know it.
    """
    text = tokenizer("a a", add_special_tokens=False)["input_ids"]
    words = tokenizer(["a", "a"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    return bool(text != words)
