"""Windows of tokens over the words of sentences, such that every word counts exactly once.

A sentence that is longer than `max_length` is split into overlapping windows. Each word counts in
one of them, in the loss and in the scores: where most of its context is.
"""

from collections.abc import Sequence

from dcft_cli.data.token_cache import Encoding, Tokenizer


def encode_words(
    sentences: Sequence[Sequence[str]], tokenizer: Tokenizer, max_length: int, stride: int
) -> Encoding:
    """Encode each sentence, in as many windows as it needs.

    The encoding also has `overflow_to_sample_mapping`, the sentence of each window.

    Args:
        sentences: the words of each.
        tokenizer: a fast one.
        max_length: longest window in tokens.
        stride: tokens that neighboring windows share; at most half a window.
    """
    prefix = " " if needs_spaces(tokenizer) else ""
    size = max_length - tokenizer.num_special_tokens_to_add()
    encoded: Encoding = tokenizer(
        [[prefix + word for word in words] for words in sentences],
        is_split_into_words=True,
        truncation=True,
        max_length=max_length,
        stride=min(stride, size // 2),
        return_overflowing_tokens=True,
    )
    return encoded


def assign_words(encoded: Encoding) -> list[dict[int, int]]:
    """Return the words that count in each window, with the index of the first token of each.

    A word counts where it has more context than elsewhere: tokens up to the nearer end of the
    window. Words that yield no tokens count in no window.
    """
    best: dict[tuple[int, int], tuple[int, int, int]] = {}
    sentences = encoded["overflow_to_sample_mapping"]
    for window, sentence in enumerate(sentences):
        word_ids = encoded.word_ids(window)
        tokens = [(word, token) for token, word in enumerate(word_ids) if word is not None]
        first, last = dict(reversed(tokens)), dict(tokens)
        for word in last:
            context = min(first[word] - tokens[0][1], tokens[-1][1] - last[word])
            # The first of equals: a later window may hold only the end of the word.
            if (sentence, word) not in best or context > best[sentence, word][0]:
                best[sentence, word] = context, window, first[word]
    assigned: list[dict[int, int]] = [{} for _ in sentences]
    for (_, word), (_, window, token) in best.items():
        assigned[window][word] = token
    return assigned


def needs_spaces(tokenizer: Tokenizer) -> bool:
    """Return whether words must be prefixed with a space to be encoded as in running text.

    To byte-level tokenizers (RoBERTa, GPT-2) the space is part of the word; without it a list of
    words would be encoded as one long word. Tokenizers that know add_prefix_space=True do the
    same by themselves.
    """
    text = tokenizer("a a", add_special_tokens=False)["input_ids"]
    words = tokenizer(["a", "a"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    return bool(text != words)
