from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from dcft_cli.tasks.token_classification.windows import assign_words, encode_words, plan_windows
from tests.tasks.conftest import byte_level, wordpiece


def tokens_of(counts: list[int], span: tuple[int, int]) -> int:
    return sum(counts[slice(*span)])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(9, 24), st.integers(0, 12))
def test_windows_cover_all_words_and_advance(counts: list[int], size: int, stride: int) -> None:
    stride = min(stride, size // 2)
    windows = plan_windows(np.array(counts), size, stride)
    assert (windows[0][0], windows[-1][1]) == (0, len(counts))
    assert all(tokens_of(counts, window) <= size for window in windows)
    for (first, stop), (next_first, next_stop) in pairwise(windows):
        assert first < next_first <= stop < next_stop
        assert tokens_of(counts, (next_first, stop)) <= stride
    assignments = assign_words(np.array(counts), windows)
    assigned = sorted(word for words in assignments for word in words)
    assert assigned == [word for word, count in enumerate(counts) if count]
    for (first, stop), words in zip(windows, assignments, strict=True):
        assert all(first <= word < stop for word in words)


def test_a_word_counts_where_it_has_more_context() -> None:
    windows = plan_windows(np.ones(10, dtype=np.int64), 6, 2)
    assert windows == [(0, 6), (4, 10)]
    assert assign_words(np.ones(10, dtype=np.int64), windows) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_short_sentence_is_one_window(any_tokenizer: PreTrainedTokenizerFast) -> None:
    (window,) = encode_words([["the", "dog", "is", "tall"]], any_tokenizer, 64, 8)
    whole = any_tokenizer(" the dog is tall")
    assert window.inputs == dict(whole)
    assert (window.sentence, window.words) == (0, [0, 1, 2, 3])
    assert len(window.tokens) == 4


def test_tokens_are_the_first_of_each_word() -> None:
    tokenizer = wordpiece()
    (window,) = encode_words([["ab", "c", "def"]], tokenizer, 64, 8)
    pieces = tokenizer.convert_ids_to_tokens(window.inputs["input_ids"])
    assert pieces == ["[CLS]", "a", "##b", "c", "d", "##e", "##f", "[SEP]"]
    assert window.tokens == [1, 3, 4]


def test_a_long_sentence_is_cut_between_words(any_tokenizer: PreTrainedTokenizerFast) -> None:
    words = [f"w{number}" for number in range(40)]
    windows = encode_words([["a"], words], any_tokenizer, 24, 6)
    assert [window.sentence for window in windows] == [0] + [1] * (len(windows) - 1)
    assert max(len(window.inputs["input_ids"]) for window in windows) <= 24
    assert [word for window in windows[1:] for word in window.words] == list(range(40))
    specials = {any_tokenizer.cls_token_id, any_tokenizer.sep_token_id}
    for window in windows:
        ids = window.inputs["input_ids"]
        assert (ids[0], ids[-1]) == (any_tokenizer.cls_token_id, any_tokenizer.sep_token_id)
        assert specials.isdisjoint(ids[1:-1])
        assert {len(values) for values in window.inputs.values()} == {len(ids)}
        for word, token in zip(window.words, window.tokens, strict=True):
            (single,) = encode_words(
                [[words[word] if window.sentence else "a"]], any_tokenizer, 64, 6
            )
            own = single.inputs["input_ids"][1:-1]
            assert ids[token : token + len(own)] == own


def test_a_word_longer_than_a_window_keeps_its_first_tokens() -> None:
    windows = encode_words([["a", "x" * 50, "b"]], wordpiece(), 10, 4)
    assert [window.words for window in windows] == [[0], [1], [2]]
    assert len(windows[1].inputs["input_ids"]) == 10
    assert windows[1].tokens == [1]


def test_words_and_sentences_without_tokens() -> None:
    sentences = [["a", "\u200b", "b"], [], ["\u200b"], ["c"]]
    windows = encode_words(sentences, wordpiece(), 16, 4)
    assert [(window.sentence, window.words) for window in windows] == [(0, [0, 2]), (3, [0])]
    assert encode_words([[]], wordpiece(), 16, 4) == []


def test_byte_level_tokenizers_get_a_space_before_every_word() -> None:
    """As add_prefix_space=True, which published RoBERTas are not set to."""
    (window,) = encode_words([["ab", "c"]], byte_level(), 16, 4)
    pieces = byte_level().convert_ids_to_tokens(window.inputs["input_ids"])
    assert pieces == ["<s>", "Ġ", "a", "b", "Ġ", "c", "</s>"]
    assert window.tokens == [1, 4]
    prefixing = byte_level()
    prefixing.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    assert dict(prefixing(["ab", "c"], is_split_into_words=True)) == window.inputs
    assert encode_words([["ab", "c"]], prefixing, 16, 4) == [window]
