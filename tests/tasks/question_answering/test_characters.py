"""Which characters of a context belong to an answer although they make no token."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcft_cli.tasks.question_answering.characters import (
    bare_span,
    dropped_characters,
    whole_answers,
    whole_span,
)

DROPPED = "\u0301\u200b\x00"


def dropped_in(context: str) -> set[int]:
    return {place for place, character in enumerate(context) if character in DROPPED}


def test_dropped_characters_are_in_no_window() -> None:
    context = "ab\u0301 c\u0301d"
    first, second = np.array([(0, 1), (1, 2)]), np.array([(1, 2), (4, 5), (6, 7)])
    assert dropped_characters(context, [first, second]) == {2, 5}
    assert dropped_characters(context, [first]) == {2, 4, 5, 6}
    assert dropped_characters(context, []) == {0, 1, 2, 4, 5, 6}
    assert dropped_characters("", [np.empty((0, 2), dtype=np.int64)]) == set()


@pytest.mark.parametrize(
    ("context", "bare", "whole"),
    [
        ("cafe\u0301 noir", "cafe", "cafe\u0301"),
        ("cafe\u0301", "cafe", "cafe\u0301"),
        ("\u200bcafe", "cafe", "\u200bcafe"),
        ("un \u200b\u0301cafe", "cafe", "\u200b\u0301cafe"),
        ("(\u200bcafe)", "cafe", "cafe"),  # it belongs to the parenthesis
        ("e\u0301e", "e", "e\u0301"),
        ("un \u200b cafe", "cafe", "cafe"),  # alone between spaces
        ("cafe noir", "cafe", "cafe"),
    ],
)
def test_the_characters_that_belong_to_a_span(context: str, bare: str, whole: str) -> None:
    start = context.index(bare)
    first, last = whole_span(context, (start, start + len(bare)), dropped_in(context))
    assert context[first:last] == whole


@given(st.text(f"ab( {DROPPED}", max_size=12), st.data())
def test_all_spans_of_the_same_tokens_give_the_same_text(context: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(context)))
    end = data.draw(st.integers(start, len(context)))
    dropped = dropped_in(context)
    bare = bare_span(context[start:end], start, dropped)
    if bare[0] == bare[1]:
        return
    whole = whole_span(context, bare, dropped)
    assert whole[0] <= bare[0] < bare[1] <= whole[1]
    assert bare_span(context[slice(*whole)], whole[0], dropped) == bare
    answers = {"text": [context[start:end]], "answer_start": [start]}
    assert whole_answers(answers, context, dropped)[0].strip() == context[slice(*whole)]


@given(st.text("ab( ", max_size=12), st.data())
def test_ordinary_answers_stay_as_they_are(context: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(context)))
    text = context[start : data.draw(st.integers(start, len(context)))]
    assert whole_answers({"text": [text], "answer_start": [start]}, context, set()) == [text]
    first, last = bare_span(text, start, set())
    assert context[first:last] == text.strip()
    assert whole_span(context, (first, last), set()) == (first, last)


def test_an_answer_without_tokens_stays_as_it_is() -> None:
    answers = {"text": ["\u0301", "b"], "answer_start": [1, 2]}
    assert whole_answers(answers, "a\u0301b", {1}) == ["\u0301", "b"]
