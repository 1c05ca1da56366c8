import unicodedata

import pytest

from dcft_cli.data.similar_names import similar_names


@pytest.mark.parametrize(
    ("rare", "frequent"),
    [
        ("Billing", "billing"),
        ("billing.", "billing"),
        ("billing\u200b", "billing"),
        ("card lost", "card_lost"),
        ("Card-Lost", "card_lost"),
        ("\uff21\uff22", "AB"),
        ("b-per", "B-PER"),
        ("1.0", "1"),
        (unicodedata.normalize("NFD", "café"), "café"),
        ("biling", "billing"),
        ("billling", "billing"),
        ("biiling", "billing"),
        ("lost_credt_card", "lost credit card"),
        ("billign", "billing"),
    ],
)
def test_names_that_may_mean_one_class(rare: str, frequent: str) -> None:
    assert similar_names({frequent: 50, rare: 5, "other": 9}) == [(rare, frequent)]


@pytest.mark.parametrize(
    ("rare", "frequent"),
    [
        ("I-PER", "B-PER"),
        ("I-ORGANIZATION", "B-ORGANIZATION"),
        ("class 2", "class 1"),
        ("class b", "class a"),
        ("room101", "room102"),
        ("negative", "positive"),
        ("atypical", "typical"),
        ("female", "male"),
        ("2", "1"),
        ("-1", "1"),
        ("0.5", "0.25"),
        ("c++", "c#"),
        ("cat", "car"),
        ("contradiction", "entailment"),
    ],
)
def test_names_that_mean_different_classes(rare: str, frequent: str) -> None:
    assert similar_names({frequent: 50, rare: 1}) == []


def test_a_name_of_many_rows_is_not_mistyped() -> None:
    assert similar_names({"refund": 50, "refunds": 6}) == []
    assert similar_names({"refund": 50, "refunds": 5}) == [("refunds", "refund")]
