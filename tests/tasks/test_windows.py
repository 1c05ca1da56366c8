import random

import numpy as np
import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from dcft_cli.errors import ModelError, RecipeError
from dcft_cli.tasks.question_answering import QuestionAnswering
from dcft_cli.tasks.windows import answer_tokens, check_windows, context_tokens, encode_windows

LETTERS = "abcdefghijklmnopqrstuvwxyzéß日本🙂"


def task(max_length: int = 96, document_stride: int = 40) -> QuestionAnswering:
    return QuestionAnswering(
        text=("question", "context"),
        answers="answers",
        metrics=("f1", "exact_match"),
        max_length=max_length,
        document_stride=document_stride,
        null_threshold=None,
        n_best=20,
        max_answer_length=40,
    )


def random_questions(count: int, seed: int = 0) -> Dataset:
    """Contexts of random words; the answer is one word or two of them."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        words = ["".join(rng.choices(LETTERS, k=rng.randint(1, 4))) for _ in range(40)]
        first = rng.randrange(len(words) - 1)
        text = " ".join(words[first : first + rng.randint(1, 2)])
        start = len(" ".join([*words[:first], ""])) if first else 0
        answers = {"text": [text], "answer_start": [start]}
        context = " ".join(words)
        assert context[start:].startswith(text)
        question = " ".join(words[:3])
        rows.append(
            {"id": str(number), "question": question, "context": context, "answers": answers}
        )
    return Dataset.from_list(rows)


def test_labels_of_windows_decode_to_the_answers(any_tokenizer: PreTrainedTokenizerFast) -> None:
    questions = random_questions(60)
    evaluation = task().evaluation_set("", questions, any_tokenizer)
    training = task().encode_training(questions, any_tokenizer)
    order = np.argsort(-np.array(training["length"][:]), kind="stable")
    training = training.select(order)
    assert training["input_ids"][:] == evaluation.features["input_ids"][:]
    assert len(training) > 1.5 * len(questions), "contexts are to be windowed"

    longest = max(training["length"][:])
    start = np.full((len(training), longest), -100, dtype=np.float32)
    end = start.copy()
    for window, features in enumerate(training):
        start[window, : features["length"]] = end[window, : features["length"]] = 0
        start[window, features["start_positions"]] = 10
        end[window, features["end_positions"]] = 10
    assert evaluation.decode is not None
    answers = evaluation.decode((start, end))
    for question in questions:
        assert answers[question["id"]].text == question["answers"]["text"][0]
    assert evaluation.score((start, end), None) == {"exact_match": 100.0, "f1": 100.0}


def test_windows_without_the_answer_point_at_cls(any_tokenizer: PreTrainedTokenizerFast) -> None:
    training = task().encode_training(random_questions(20), any_tokenizer)
    elsewhere = [row for row in training if row["start_positions"] == 0]
    assert elsewhere
    for row in elsewhere:
        assert row["end_positions"] == 0
        assert row["input_ids"][0] == any_tokenizer.cls_token_id


def test_features_are_the_inputs_of_the_model(any_tokenizer: PreTrainedTokenizerFast) -> None:
    inputs = {*any_tokenizer.model_input_names, "length"}
    training = task().encode_training(random_questions(3), any_tokenizer)
    assert set(training.column_names) == inputs | {"start_positions", "end_positions"}
    features = task().evaluation_set("dev", random_questions(3), any_tokenizer).features
    assert set(features.column_names) == inputs
    assert features["length"][:] == [len(ids) for ids in features["input_ids"]]
    assert features["length"][:] == sorted(features["length"][:], reverse=True)
    assert max(features["length"]) == 96


def test_neighbouring_windows_share_the_stride(tokenizer: PreTrainedTokenizerFast) -> None:
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
    room = 40 - special - 20
    check_windows(any_tokenizer, 40, room - 1)
    assert len(encode_windows([question], [context], any_tokenizer, 40, room - 1)["input_ids"]) > 1
    with pytest.raises(RecipeError, match=rf"document_stride: {room} .* holds {room} tokens"):
        check_windows(any_tokenizer, 40, room)


def test_a_stride_that_does_not_fit_stops_both_encodings(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(RecipeError, match="document_stride"):
        task(64, 64).encode_training(random_questions(1), tokenizer)
    with pytest.raises(RecipeError, match="document_stride"):
        task(64, 64).evaluation_set("", random_questions(1), tokenizer)


def test_a_slow_tokenizer_is_refused() -> None:
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
