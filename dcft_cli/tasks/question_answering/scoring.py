"""Exact match and F1 of answers, by the rules of SQuAD's evaluation script of version 2.0.

Rajpurkar et al. 2018, arXiv 1806.03822. Answers are compared without case, punctuation, the
articles a, an, the, and superfluous spaces; of several references the best one counts. Version
1.1's script differs in one point: a reference of only articles and punctuation gets an F1 of 0 for
any answer.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dcft_cli.tasks.question_answering.decoding import Answer

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")

Scores = NDArray[np.float64]


def normalize(text: str) -> str:
    """Return an answer in lower case, without (ASCII) punctuation and articles."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 if the answer is one of the references, else 0; without references, "" is right."""
    return float(normalize(answer) in _normalized(references))


def f1(answer: str, references: Sequence[str]) -> float:
    """Return the F1 of words shared with the best reference; without references, "" is right."""
    return max(_word_f1(normalize(answer), reference) for reference in _normalized(references))


def _normalized(references: Sequence[str]) -> list[str]:
    return [text for text in map(normalize, references) if text] or [""]


def _word_f1(answer: str, reference: str) -> float:
    words, expected = Counter(answer.split()), Counter(reference.split())
    shared = (words & expected).total()
    if not shared:
        return float(answer == reference)  # right if both are "no answer"
    return 2 * shared / (words.total() + expected.total())


def score_answers(
    answers: Sequence[Answer], references: Sequence[Sequence[str]], null_threshold: float | None
) -> dict[str, float]:
    """Score answers against the references of each question, as percentages.

    Args:
        answers: one per question.
        references: right answers to each question; none if it has no answer.
        null_threshold: "no answer" is given if it leads by more; None if every question has an
            answer, as in SQuAD v1.1.

    Returns:
        `exact_match` and `f1`. With a threshold also both over the questions with an answer and
        over those without (`has_answer_*`, `no_answer_*`; absent if there is no such question),
        and the score of the best threshold for this very set (`best_*`, with
        `best_*_threshold`).
    """
    limit = math.inf if null_threshold is None else null_threshold
    given = ["" if answer.no_answer_score > limit else answer.text for answer in answers]
    scores: dict[str, float] = {}
    answerable = np.array([bool(texts) for texts in references])
    for name, metric in (("exact_match", exact_match), ("f1", f1)):
        values = _each(metric, given, references)
        scores[name] = _percent(values)
        if null_threshold is None:
            continue
        for part, mask in (("has_answer", answerable), ("no_answer", ~answerable)):
            if mask.any():
                scores[f"{part}_{name}"] = _percent(values[mask])
        best, threshold = _best(metric, answers, references)
        scores[f"best_{name}"], scores[f"best_{name}_threshold"] = best, threshold
    return scores


def best_null_threshold(answers: Sequence[Answer], references: Sequence[Sequence[str]]) -> float:
    """Return the threshold with the best F1; see `best_threshold`."""
    return _best(f1, answers, references)[1]


def _best(
    metric: Callable[[str, Sequence[str]], float],
    answers: Sequence[Answer],
    references: Sequence[Sequence[str]],
) -> tuple[float, float]:
    return best_threshold(
        np.array([answer.no_answer_score for answer in answers]),
        answered=_each(metric, [answer.text for answer in answers], references),
        unanswered=_each(metric, [""] * len(answers), references),
    )


def best_threshold(
    no_answer_scores: Scores, answered: Scores, unanswered: Scores
) -> tuple[float, float]:
    """Return the best percentage that any threshold reaches, and the lowest such threshold.

    It lies halfway between the "no answer" scores on its two sides, so that rounding does not
    cross it.

    Questions are answered up to a "no answer" score and left unanswered above it. Questions with
    the same score stay together, as when a threshold is applied (the official script separates
    them).

    Args:
        no_answer_scores: (questions,).
        answered: score of each question if its span is given.
        unanswered: score of each question if no answer is given.
    """
    order = np.argsort(no_answer_scores, kind="stable")
    leads = no_answer_scores[order]
    # totals[k]: score if the k questions with the lowest lead are answered.
    totals = np.concatenate([[0.0], np.cumsum((answered - unanswered)[order])]) + unanswered.sum()
    possible = np.concatenate([[True], leads[1:] > leads[:-1], [True]])
    k = int(np.argmax(np.where(possible, totals, -np.inf)))
    edges = np.concatenate([leads[:1] - 2.0, leads, leads[-1:] + 2.0])
    return 100.0 * float(totals[k]) / len(leads), float(edges[k] + edges[k + 1]) / 2


def _each(
    metric: Callable[[str, Sequence[str]], float],
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
) -> Scores:
    return np.array([metric(a, r) for a, r in zip(answers, references, strict=True)])


def _percent(scores: Scores) -> float:
    return 100.0 * float(scores.mean())
