import numpy as np
import pytest

from dcft_cli.tasks.question_answering.decoding import Answer, Window, decode

CONTEXT = "one two three four"
SPANS = np.array([(0, 3), (4, 7), (8, 13), (14, 18)])

# A window: [CLS] question [SEP] one two three four [SEP], padded.
FIRST, LENGTH, PADDED = 3, 8, 10


def window(question: int = 0, spans: np.ndarray = SPANS) -> Window:
    return Window(question, cls=0, first=FIRST, spans=spans)


def logits(**values: float) -> np.ndarray:
    """0 everywhere, but `cls`, `question`, `t0`... (context tokens), `sep` and `padding`."""
    row = np.zeros(PADDED, dtype=np.float32)
    row[LENGTH:] = values.pop("padding", -100.0)
    places = {"cls": 0, "question": 1, "sep": LENGTH - 1}
    for name, value in values.items():
        row[places[name] if name in places else FIRST + int(name[1:])] = value
    return row


def answer(
    start: np.ndarray, end: np.ndarray, n_best: int = 20, max_answer_length: int = 30
) -> Answer:
    return decode([start], [end], [window()], [CONTEXT], n_best, max_answer_length)[0]


def test_the_span_with_the_highest_sum_wins() -> None:
    found = answer(logits(t0=1, t1=5), logits(t2=4, t3=3.5))
    assert found.text == "two three"
    assert found.no_answer_score == -9.0


def test_a_span_does_not_end_before_its_start() -> None:
    assert answer(logits(t2=5), logits(t1=2, t3=1)).text == "three four"


def test_a_span_is_no_longer_than_allowed() -> None:
    start, end = logits(t0=5), logits(t3=5, t1=1)
    assert answer(start, end, max_answer_length=4).text == CONTEXT
    assert answer(start, end, max_answer_length=3).text == "one two"
    assert answer(start, end, max_answer_length=1).text == "one"


@pytest.mark.parametrize("place", ["cls", "question", "sep", "padding"])
def test_answers_are_only_in_the_context(place: str) -> None:
    start, end = logits(**{place: 50.0, "t1": 1}), logits(**{place: 50.0, "t1": 1})
    assert answer(start, end).text == "two"


def test_n_best_limits_the_candidates() -> None:
    # The best start is after the best end; the best valid span needs both runners-up.
    start, end = logits(t3=5, t0=4), logits(t1=5, t2=4)
    assert answer(start, end, n_best=2).text == "one two"
    nothing = answer(start, end, n_best=1)
    assert nothing == Answer("", 0.0)


def test_the_cls_token_scores_no_answer() -> None:
    found = answer(logits(cls=3, t0=2), logits(cls=4, t0=2.5))
    assert found.text == "one"
    assert found.no_answer_score == 2.5


def test_windows_of_a_question_are_combined() -> None:
    halves = [window(spans=SPANS[:2]), window(spans=SPANS[2:])]
    start = [logits(cls=9, t0=1), logits(cls=2, t0=3)]
    end = [logits(cls=9, t1=1), logits(cls=1, t1=3)]
    (found,) = decode(start, end, halves, [CONTEXT], 20, 30)
    # Best span: of the second window. No answer: the lowest of the windows, 3 - 6.
    assert found == Answer("three four", -3.0, start=8)


def test_windows_may_come_in_any_order() -> None:
    start, end = [logits(t1=1), logits(t2=1)], [logits(t1=1), logits(t2=1)]
    found = decode(start, end, [window(1), window(0)], [CONTEXT, CONTEXT], 20, 30)
    assert [one.text for one in found] == ["three", "two"]


def test_the_space_before_a_word_is_not_part_of_the_answer() -> None:
    spans = np.array([(0, 3), (3, 7), (7, 13), (13, 18)])
    ((found),) = decode([logits(t1=1)], [logits(t2=1)], [window(spans=spans)], [CONTEXT], 20, 30)
    assert found.text == "two three" == CONTEXT[found.start : found.start + len(found.text)]


def test_a_context_without_tokens_gives_an_empty_answer() -> None:
    empty = window(spans=np.empty((0, 2), dtype=np.int64))
    assert decode([logits()], [logits()], [empty], [""], 20, 30) == [Answer("", 0.0)]
