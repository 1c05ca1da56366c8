import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval import metrics as seqeval
from seqeval.metrics.sequence_labeling import get_entities

from dcft_cli.errors import DataError
from dcft_cli.tasks.token_classification.scoring import (
    are_entity_tags,
    entities,
    read_tag,
    score_entities,
)


def found(tags: str) -> list[tuple[int, int, str]]:
    return list(entities([read_tag(tag) for tag in tags.split()]))


def score(guessed: list[str], expected: list[str]) -> dict[str, float]:
    def read(sentences: list[str]) -> list[list[tuple[str, str]]]:
        return [[read_tag(tag) for tag in sentence.split()] for sentence in sentences]

    return score_entities(read(guessed), read(expected))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-PER I-PER O B-LOC", [(0, 1, "PER"), (3, 3, "LOC")]),
        ("B-PER B-PER", [(0, 0, "PER"), (1, 1, "PER")]),
        ("B-PER I-LOC", [(0, 0, "PER"), (1, 1, "LOC")]),
        ("I-PER I-PER B-PER O", [(0, 1, "PER"), (2, 2, "PER")]),  # IOB1
        ("O I-PER", [(1, 1, "PER")]),
        ("S-LOC B-PER I-PER E-PER O", [(0, 0, "LOC"), (1, 3, "PER")]),  # BIOES
        ("U-LOC B-PER I-PER L-PER O", [(0, 0, "LOC"), (1, 3, "PER")]),  # BILOU
        ("S-LOC S-LOC", [(0, 0, "LOC"), (1, 1, "LOC")]),
        ("B-PER E-PER E-PER", [(0, 1, "PER"), (2, 2, "PER")]),
        ("B-PER S-PER I-PER", [(0, 0, "PER"), (1, 1, "PER"), (2, 2, "PER")]),
        ("B I O I", [(0, 1, ""), (3, 3, "")]),
        ("B-a-b I-a-b", [(0, 1, "a-b")]),
    ],
)
def test_entities_of_tags(tags: str, expected: list[tuple[int, int, str]]) -> None:
    assert found(tags) == expected


def test_scores_by_hand() -> None:
    expected = ["B-PER I-PER O B-LOC", "O O", "B-ORG I-ORG I-ORG"]
    guessed = ["B-PER I-PER O B-ORG", "B-LOC O", "B-ORG I-ORG O"]
    # True: PER 0-1, LOC 3, ORG 0-2. Predicted: PER 0-1 (right), ORG 3, LOC 0, ORG 0-1.
    assert score(guessed, expected) == pytest.approx(
        {"f1": 2 / 7, "precision": 1 / 4, "recall": 1 / 3}
    )


def sentences(marks: str) -> st.SearchStrategy[list[tuple[list[str], list[str]]]]:
    """True and predicted tags of a few sentences, whether or not a scheme allows them."""
    tag = st.sampled_from(["O", *(f"{mark}-{kind}" for mark in marks for kind in ("X", "Y"))])
    sentence = st.lists(st.tuples(tag, tag), min_size=1, max_size=12)
    pairs = sentence.map(lambda words: tuple(map(list, zip(*words, strict=True))))
    return st.lists(pairs, min_size=1, max_size=4)


@pytest.mark.parametrize("marks", ["BI", "BIES"])
def test_entities_and_scores_agree_with_seqeval(marks: str) -> None:
    @given(sentences(marks))
    def check(pairs: list[tuple[list[str], list[str]]]) -> None:
        expected, guessed = ([pair[side] for pair in pairs] for side in (0, 1))
        for tags in (*expected, *guessed):
            own = [(kind, first, last) for first, last, kind in found(" ".join(tags))]
            assert own == get_entities(tags)
        scores = score([" ".join(tags) for tags in guessed], [" ".join(tags) for tags in expected])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about scores that are undefined
            assert scores == pytest.approx(
                {
                    "f1": seqeval.f1_score(expected, guessed),
                    "precision": seqeval.precision_score(expected, guessed),
                    "recall": seqeval.recall_score(expected, guessed),
                }
            )

    check()


@pytest.mark.parametrize(
    ("labels", "entities_"),
    [
        (["B-PER", "I-PER", "O"], True),
        (["I-PER", "O"], True),
        (["B", "I", "O"], True),
        (["S-PER", "B-PER", "E-PER", "O"], True),
        (["U-PER", "O"], True),
        (["S-PER", "S-LOC", "O"], True),
        (["S-PER", "S-LOC"], False),
        (["O"], False),
        (["NOUN", "VERB", "X"], False),
        (["S", "E", "O"], False),
        (["BIRD", "INSECT", "O"], False),
        (["0", "1"], False),
        (["A", "B", "C"], False),  # single letters that happen to be marks
    ],
)
def test_entity_tags_are_recognized(labels: list[str], entities_: bool) -> None:
    assert are_entity_tags(labels) is entities_


@pytest.mark.parametrize("other", ["LOC", "A"])
def test_entity_tags_cannot_be_mixed_with_other_labels(other: str) -> None:
    with pytest.raises(DataError, match=rf"mix tags of entities \(B-PER\) with others \({other}\)"):
        are_entity_tags(["B-PER", other, "I-PER", "O"])
