import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from dcft_cli.errors import ModelError, RecipeError
from dcft_cli.tasks.question_answering.windows import (
    answer_tokens,
    check_windows,
    context_tokens,
    encode_windows,
)


def test_neighboring_windows_share_the_stride(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_windows(["q"], ["ab " * 60], tokenizer, 40, 12)
    (_, before), (_, after) = context_tokens(encoded, 0), context_tokens(encoded, 1)
    assert before[-12:].tolist() == after[:12].tolist()


@pytest.mark.parametrize(("max_length", "kept"), [(384, 64), (40, 20)])
def test_a_long_question_is_cut(
    any_tokenizer: PreTrainedTokenizerFast, max_length: int, kept: int
) -> None:
    any_tokenizer.truncation_side = "left"  # must not cut the question's beginning
    try:
        encoded = encode_windows(["  " + "x " * 500], ["abc " * 30], any_tokenizer, max_length, 4)
    finally:
        any_tokenizer.truncation_side = "right"
    for window in range(len(encoded["input_ids"])):
        assert encoded.sequence_ids(window).count(0) == kept
        assert len(encoded["input_ids"][window]) <= max_length


def test_the_largest_stride_that_passes_the_check_works(
    any_tokenizer: PreTrainedTokenizerFast,
) -> None:
    question, context = "question " * 50, "some words " * 30
    special = any_tokenizer.num_special_tokens_to_add(pair=True)
    size = 40 - special - 20
    check_windows(any_tokenizer, 40, size - 1)
    assert len(encode_windows([question], [context], any_tokenizer, 40, size - 1)["input_ids"]) > 1
    with pytest.raises(RecipeError, match=rf"document_stride: {size} .* holds {size} tokens"):
        check_windows(any_tokenizer, 40, size)


def test_a_fast_tokenizer_is_required() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="Slow is none"):
        check_windows(Slow(), 384, 128)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("start", "end", "tokens"),
    [
        (4, 7, (1, 1)),
        (4, 13, (1, 2)),
        (5, 6, (1, 1)),  # inside a token
        (6, 9, (1, 2)),
        (0, 18, (0, 3)),
        (3, 4, None),  # a space that no token covers
        (0, 19, None),  # goes on in the next window
    ],
)
def test_answer_tokens(start: int, end: int, tokens: tuple[int, int] | None) -> None:
    spans = np.array([(0, 3), (4, 7), (8, 13), (14, 18)])
    assert answer_tokens(spans, start, end) == tokens


def test_answer_tokens_of_later_windows() -> None:
    spans = np.array([(8, 13), (14, 18)])
    assert answer_tokens(spans, 4, 13) is None
    assert answer_tokens(spans, 8, 13) == (0, 0)
    assert answer_tokens(np.empty((0, 2), dtype=np.int64), 0, 1) is None
