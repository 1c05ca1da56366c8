import pytest
from datasets import Dataset

from dcft_cli.data.holdout import hold_out
from dcft_cli.data.rows import RowSet
from dcft_cli.errors import DataError
from dcft_cli.recipe import HoldoutSection

WORDS = [f"{stem}{ending}" for stem in map(str, range(1000, 1500)) for ending in ("", "s", "ED")]


def divide(texts: list[str], **settings: object) -> tuple[list[str], list[str]]:
    holdout = HoldoutSection(**{"fraction": 0.2, **settings})
    rows = RowSet(Dataset.from_dict({"text": texts}), "words.tsv")
    train, validation = hold_out(rows, "text", None, holdout)
    return [texts[n] for n in train], [texts[n] for n in validation]


def test_every_row_is_on_one_side_and_the_order_is_kept() -> None:
    train, validation = divide(WORDS)
    assert sorted([*train, *validation]) == sorted(WORDS)
    assert train == [word for word in WORDS if word in set(train)]
    assert 0.15 < len(validation) / len(WORDS) < 0.25


def test_the_split_is_the_same_every_time() -> None:
    # Pinned: another hash or key would silently mix the sides of earlier runs.
    assert divide([str(number) for number in range(20)])[1] == ["7", "15", "18"]
    assert divide(WORDS) == divide(WORDS)
    assert divide(WORDS, seed=1) != divide(WORDS)


def test_a_row_keeps_its_side_when_rows_are_added_or_removed() -> None:
    _, validation = divide(WORDS)
    _, fewer = divide(WORDS[::-2])
    assert set(fewer) == set(validation) & set(WORDS[::-2])


def test_texts_that_differ_in_case_stay_together() -> None:
    train, validation = divide([*WORDS, *map(str.upper, WORDS)])
    assert not {word.lower() for word in train} & {word.lower() for word in validation}


def test_texts_with_a_common_beginning_stay_together() -> None:
    train, validation = divide(WORDS, group_prefix=4)
    assert not {word[:4] for word in train} & {word[:4] for word in validation}
    apart = divide(WORDS)
    assert {word[:4] for word in apart[0]} & {word[:4] for word in apart[1]}


def test_an_empty_side_is_an_error() -> None:
    with pytest.raises(DataError, match="leaves no validation rows out of 1"):
        divide(["one"], fraction=0.0001)
    with pytest.raises(DataError, match="leaves no training rows out of 1"):
        divide(["one"], fraction=0.9999)
