import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel
from transformers import BatchEncoding, PreTrainedTokenizerFast

from dcft_cli.tasks.token_classification.windows import assign_words, encode_words
from tests.tasks.conftest import byte_level, wordpiece


def pieces(tokenizer: PreTrainedTokenizerFast, encoded: BatchEncoding, window: int) -> list[str]:
    return tokenizer.convert_ids_to_tokens(encoded["input_ids"][window])


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(12, 24), st.integers(1, 12)
)
def test_every_word_counts_once_at_its_first_token(
    lengths: list[int], max_length: int, stride: int
) -> None:
    """A word is an x and digits, one token each, or has no tokens."""
    tokenizer = wordpiece()
    words = [f"x{'1' * (length - 1)}" if length else "\u200b" for length in lengths]
    encoded = encode_words([words], tokenizer, max_length, stride)
    assigned = assign_words(encoded)
    counted = sorted(word for window in assigned for word in window)
    assert counted == [word for word, length in enumerate(lengths) if length]
    for window, tokens in enumerate(assigned):
        assert len(encoded["input_ids"][window]) <= max_length
        assert all(pieces(tokenizer, encoded, window)[token] == "x" for token in tokens.values())


def test_a_word_counts_where_it_has_more_context() -> None:
    assigned = assign_words(encode_words([["a"] * 10], wordpiece(), 8, 2))
    assert [list(words) for words in assigned] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_short_sentence_is_one_window(any_tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_words([["the", "dog", "is", "tall"]], any_tokenizer, 64, 8)
    whole = any_tokenizer([" the dog is tall"])
    assert dict(encoded) == whole | {"overflow_to_sample_mapping": [0]}
    (words,) = assign_words(encoded)
    assert list(words) == [0, 1, 2, 3]


def test_special_tokens_surround_every_window(any_tokenizer: PreTrainedTokenizerFast) -> None:
    words = [f"w{number}" for number in range(40)]
    encoded = encode_words([["a"], words], any_tokenizer, 24, 6)
    sentences = encoded["overflow_to_sample_mapping"]
    assert sentences == [0] + [1] * (len(sentences) - 1)
    assert [word for counted in assign_words(encoded)[1:] for word in counted] == list(range(40))
    specials = {any_tokenizer.cls_token_id, any_tokenizer.sep_token_id}
    for ids in encoded["input_ids"]:
        assert (ids[0], ids[-1]) == (any_tokenizer.cls_token_id, any_tokenizer.sep_token_id)
        assert specials.isdisjoint(ids[1:-1])


def test_a_word_longer_than_a_window_counts_at_its_beginning() -> None:
    encoded = encode_words([["a", "x" + "1" * 50, "b"]], wordpiece(), 10, 4)
    assigned = assign_words(encoded)
    assert assigned[0] == {0: 1, 1: 2}
    assert not any(assigned[1:-1])
    assert list(assigned[-1]) == [2]


def test_words_and_sentences_without_tokens() -> None:
    sentences = [["a", "\u200b", "b"], [], ["\u200b"], ["c"]]
    assigned = assign_words(encode_words(sentences, wordpiece(), 16, 4))
    assert assigned == [{0: 1, 2: 2}, {}, {}, {0: 1}]


@pytest.mark.parametrize("prefixing", [False, True])
def test_byte_level_tokenizers_get_a_space_before_every_word(prefixing: bool) -> None:
    """As add_prefix_space=True, which published RoBERTas are not set to."""
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=prefixing)
    encoded = encode_words([["ab", "c"]], tokenizer, 16, 4)
    assert pieces(tokenizer, encoded, 0) == ["<s>", "Ġ", "a", "b", "Ġ", "c", "</s>"]
    assert assign_words(encoded) == [{0: 1, 1: 4}]
