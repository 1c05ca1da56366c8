"""Rows with the same inputs have the same predictions."""

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from dcft_cli.data.evaluation_set import EvaluationSet
from dcft_cli.errors import RecipeError


def of(**columns: list[list[int]]) -> EvaluationSet:
    features = Dataset.from_dict(columns)
    return EvaluationSet("", features, lambda predictions, labels: {}, lambda logits: {})


def test_equal_inputs_share_the_predictions_of_the_first() -> None:
    eval_set = of(input_ids=[[1, 2], [3], [1, 2], [1, 2], [3], [1]])
    logits = np.arange(12).reshape(6, 2)
    shared = eval_set.same_for_equal_inputs(logits)
    assert shared[:, 0].tolist() == [0, 2, 0, 0, 2, 10]
    start, end = eval_set.same_for_equal_inputs((logits, -logits))
    assert np.array_equal(start, shared) and np.array_equal(end, -shared)


def test_pairs_differ_by_where_their_second_text_begins() -> None:
    eval_set = of(input_ids=[[1, 2], [1, 2], [1, 2]], token_type_ids=[[0, 0], [0, 1], [0, 0]])
    assert eval_set.same_for_equal_inputs(np.arange(3)).tolist() == [0, 1, 0]


def test_many_rows() -> None:
    ids = [[number % 700, 1] for number in range(2500)]
    shared = of(input_ids=ids).same_for_equal_inputs(np.arange(2500))
    assert shared.tolist() == [number % 700 for number in range(2500)]


def test_two_sets_with_a_score_of_one_name() -> None:
    scores: dict[str, float] = {}
    dev, other = (replace(of(input_ids=[]), name=name) for name in ("dev", "dev_no_answer"))
    dev.add_to(scores, {"f1": 0.5, "no_answer_f1": 0.25})
    with pytest.raises(RecipeError, match="a score named dev_no_answer_f1"):
        other.add_to(scores, {"f1": 0.125})
    assert scores == {"dev_f1": 0.5, "dev_no_answer_f1": 0.25}


def test_a_set_without_rows() -> None:
    assert of(input_ids=[]).same_for_equal_inputs(np.empty((0, 2))).shape == (0, 2)
