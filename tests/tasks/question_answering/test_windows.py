from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from dcft_cli.errors import RecipeError
from dcft_cli.tasks.question_answering.windows import (
    answer_span,
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
    message = rf"document_stride: {size} .* holds {size} tokens"
    with pytest.raises(RecipeError, match=message) as error:
        check_windows(any_tokenizer, 40, size)
    assert f"data.document_stride={size // 2}," in error.value.hint
    check_windows(any_tokenizer, 40, size // 2)


@pytest.mark.parametrize(
    ("text", "start", "tokens"),
    [
        ("two", 4, (11, 11)),
        (" two three ", 3, (11, 12)),
        ("w", 5, (11, 11)),  # inside a token
        ("one two three four", 0, (10, 13)),
        (" ", 3, (0, 0)),  # that no token covers
        ("four five", 14, (0, 0)),  # goes on in the next window
        ("zero one", -5, (0, 0)),
    ],
)
def test_the_answer_in_a_window(text: str, start: int, tokens: tuple[int, int]) -> None:
    spans = np.array([(0, 3), (4, 7), (8, 13), (14, 18)])
    answers = {"text": [text, "one"], "answer_start": [start, 0]}
    assert answer_span(answers, (10, spans), cls=0) == tokens


def test_a_window_without_an_answer() -> None:
    nothing: dict[str, list[Any]] = {"text": [], "answer_start": []}
    assert answer_span(nothing, (10, np.array([(0, 3)])), cls=5) == (5, 5)
    one = {"text": ["one"], "answer_start": [0]}
    assert answer_span(one, (0, np.empty((0, 2), dtype=np.int64)), cls=5) == (5, 5)
