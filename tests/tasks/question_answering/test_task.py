import random

import numpy as np
import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from dcft_cli.errors import RecipeError
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.recipe.schema import TaskName
from dcft_cli.tasks import build_task
from dcft_cli.tasks.base import Task

LETTERS = "abcdefghijklmnopqrstuvwxyzéß日本🙂"


def task(name: TaskName = "squad_v1", max_length: int = 96, document_stride: int = 40) -> Task:
    section = TaskSection(name=name, max_answer_length=40)
    return build_task(section, DataSection(max_length=max_length, document_stride=document_stride))


def random_questions(count: int, seed: int = 0) -> Dataset:
    """Contexts of random words; the answer is one word or two of them."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        words = ["".join(rng.choices(LETTERS, k=rng.randint(1, 4))) for _ in range(40)]
        first = rng.randrange(len(words) - 1)
        text = " ".join(words[first : first + rng.randint(1, 2)])
        start = len(" ".join([*words[:first], ""])) if first else 0
        answers = {"text": [text], "answer_start": [start]}
        context = " ".join(words)
        assert context[start:].startswith(text)
        question = " ".join(words[:3])
        rows.append({"question": question, "context": context, "answers": answers})
    return Dataset.from_list(rows)


def test_targets_decode_to_the_answers(any_tokenizer: PreTrainedTokenizerFast) -> None:
    questions = random_questions(60)
    eval_set = task().evaluation_set("", questions, any_tokenizer)
    training = task().encode_training(questions, any_tokenizer)
    order = np.argsort(-np.array(training["length"][:]), kind="stable")
    training = training.select(order)
    assert training["input_ids"][:] == eval_set.features["input_ids"][:]
    assert len(training) > 1.5 * len(questions), "contexts are to be windowed"

    longest = max(training["length"][:])
    start = np.full((len(training), longest), -100, dtype=np.float32)
    end = start.copy()
    for window, features in enumerate(training):
        start[window, : features["length"]] = end[window, : features["length"]] = 0
        start[window, features["start_positions"]] = 10
        end[window, features["end_positions"]] = 10
    assert eval_set.score((start, end), None) == {"exact_match": 100.0, "f1": 100.0}


def test_features_are_the_inputs_of_the_model(any_tokenizer: PreTrainedTokenizerFast) -> None:
    inputs = {*any_tokenizer.model_input_names, "length"}
    training = task().encode_training(random_questions(3), any_tokenizer)
    assert set(training.column_names) == inputs | {"start_positions", "end_positions"}
    features = task().evaluation_set("dev", random_questions(3), any_tokenizer).features
    assert set(features.column_names) == inputs
    assert features["length"][:] == [len(ids) for ids in features["input_ids"]]
    assert features["length"][:] == sorted(features["length"][:], reverse=True)
    assert max(features["length"]) == 96


def test_a_stride_that_does_not_fit(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(RecipeError, match="document_stride"):
        task(max_length=64, document_stride=64).encode_training(random_questions(1), tokenizer)


def test_no_answer_must_lead_by_more_than_the_threshold(tokenizer: PreTrainedTokenizerFast) -> None:
    answers = [{"text": ["cat"], "answer_start": [4]}, {"text": [], "answer_start": []}]
    rows = [
        {"question": "Who?", "context": "The cat sat.", "answers": references}
        for references in answers
    ]
    built = task("squad_v2", 64, 8)
    eval_set = built.evaluation_set("", Dataset.from_list(rows), tokenizer)
    shape = (2, eval_set.features["length"][0])
    start, end = np.zeros(shape), np.zeros(shape)
    start[1, 0] = 5  # the features keep the order of rows of one length
    scores = eval_set.score((start, end), None)
    assert scores["no_answer_exact_match"] == 100.0
    assert scores["best_f1"] >= scores["f1"]
