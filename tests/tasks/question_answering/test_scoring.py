import random

import numpy as np
import pytest

from dcft_cli.tasks.question_answering.decoding import Answer
from dcft_cli.tasks.question_answering.scoring import (
    best_null_threshold,
    best_threshold,
    exact_match,
    f1,
    normalize,
    score_answers,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cat", "cat"),
        ("a an the", ""),
        ("theme of an era", "theme of era"),
        ("  two \t\n spaces ", "two spaces"),
        ("U.S.", "us"),
        ("(the) end!", "end"),
        ("well-known", "wellknown"),
        ("a-team", "ateam"),  # punctuation goes first, so this "a" is no article any more
        ("ÉCOLE", "école"),
        ("“quoted”", "“quoted”"),  # only ASCII punctuation goes
        ("東京 の", "東京 の"),
        ("non\u00a0breaking", "non breaking"),
    ],
)
def test_normalize(text: str, expected: str) -> None:
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("answer", "references", "exact", "overlap"),
    [
        ("the cat", ["The Cat!"], 1, 1),
        ("black cat", ["the cat"], 0, 2 / 3),
        ("cat cat", ["cat"], 0, 2 / 3),  # a word counts as often as it occurs in both
        ("dog", ["cat"], 0, 0),
        ("cat", ["dog", "the black cat", "cat"], 1, 1),  # the best reference counts
        ("black cat", ["dog", "a cat"], 0, 2 / 3),
        ("", ["cat"], 0, 0),
        ("", [], 1, 1),
        ("cat", [], 0, 0),
        ("the", [], 1, 1),  # nothing is left of it
        ("", ["the"], 1, 1),
        ("cat", ["the", "cat"], 1, 1),
    ],
)
def test_exact_match_and_f1(
    answer: str, references: list[str], exact: float, overlap: float
) -> None:
    assert exact_match(answer, references) == exact
    assert f1(answer, references) == pytest.approx(overlap)


def test_scores_of_v1_are_percentages() -> None:
    answers = [Answer("The cat", 99.0), Answer("black dog", 0.0), Answer("no", 0.0)]
    references = [["cat"], ["dog"], ["yes", "indeed"]]
    scores = score_answers(answers, references, null_threshold=None)
    assert scores == {
        "exact_match": pytest.approx(100 / 3),
        "f1": pytest.approx(100 * (1 + 2 / 3) / 3),
    }


def test_scores_of_v2_by_hand() -> None:
    answers = [Answer("cat", -2.0), Answer("dog", 1.0), Answer("red", -1.0), Answer("sea", 3.0)]
    references = [["the cat"], ["dog"], [], []]
    # Given at threshold 0: "cat" (right), nothing (wrong), "red" (wrong), nothing (right).
    # Best: answer up to 1.0, which is right but for "red".
    assert score_answers(answers, references, null_threshold=0.0) == {
        "exact_match": 50.0,
        "f1": 50.0,
        "has_answer_exact_match": 50.0,
        "has_answer_f1": 50.0,
        "no_answer_exact_match": 50.0,
        "no_answer_f1": 50.0,
        "best_exact_match": 75.0,
        "best_exact_match_threshold": -1.5,
        "best_f1": 75.0,
        "best_f1_threshold": -1.5,
    }


def test_the_chosen_threshold_lies_between_two_answers() -> None:
    answers = [Answer("cat", -2.0), Answer("dog", 1.0), Answer("red", 2.0), Answer("sea", 3.0)]
    references = [["the cat"], ["dog"], [], []]
    assert best_null_threshold(answers, references) == 1.5
    assert score_answers(answers, references, 1.5)["f1"] == 100.0
    answered = best_null_threshold(answers[:2], references[:2])
    assert answered > 1.0
    assert score_answers(answers[:2], references[:2], answered)["f1"] == 100.0
    assert best_null_threshold(answers[2:], references[2:]) < 2.0


@pytest.mark.parametrize(("threshold", "score"), [(1.5, 100.0), (1.4, 0.0)])
def test_no_answer_wins_only_above_the_threshold(threshold: float, score: float) -> None:
    assert score_answers([Answer("cat", 1.5)], [["cat"]], threshold)["f1"] == score


def test_parts_without_questions_are_not_scored() -> None:
    scores = score_answers([Answer("cat", -1.0)], [["cat"]], null_threshold=0.0)
    assert scores["has_answer_f1"] == 100.0
    assert not any(name.startswith("no_answer") for name in scores)


@pytest.mark.parametrize("seed", range(50))
def test_the_best_threshold_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = random.Random(seed).randint(1, 12)
    leads = rng.integers(-4, 5, count).astype(float)  # with ties
    answered, unanswered = rng.integers(0, 5, count) / 4, rng.integers(0, 2, count).astype(float)

    def reached(threshold: float) -> float:
        return 100 * float(np.where(leads <= threshold, answered, unanswered).mean())

    best, threshold = best_threshold(leads, answered, unanswered)
    assert best == pytest.approx(max(reached(other) for other in [leads.min() - 1, *leads]))
    assert best == pytest.approx(reached(threshold))
