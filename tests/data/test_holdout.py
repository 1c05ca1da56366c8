from collections import Counter

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

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
    assert len(validation) == len(WORDS) / 5


def test_the_split_is_the_same_every_time() -> None:
    # Pinned: another hash or key would silently mix the sides of earlier runs.
    assert divide([str(number) for number in range(20)])[1] == ["4", "7", "15", "18"]
    assert divide(WORDS) == divide(WORDS)
    assert divide(WORDS, seed=1) != divide(WORDS)


def test_most_rows_keep_their_side_when_rows_are_added_or_removed() -> None:
    _, validation = divide(WORDS)
    _, fewer = divide(WORDS[::-2])
    assert len(fewer) == len(WORDS) / 10
    assert len(set(fewer) ^ (set(validation) & set(WORDS[::-2]))) <= 15


@given(st.lists(st.integers(0, 30), min_size=2), st.floats(0.01, 0.99), st.integers(0, 5))
def test_the_share_is_as_near_as_groups_allow(texts: list[int], fraction: float, seed: int) -> None:
    groups = Counter(map(str, texts))
    if len(groups) < 2:
        return
    train, validation = divide(list(map(str, texts)), fraction=fraction, seed=seed)
    assert train and validation
    moved_in = [len(validation) + groups[text] for text in set(train)]
    others = [size for size in moved_in if size < len(texts)]
    target = fraction * len(texts)
    best = min(abs(size - target) for size in [*others, len(validation)])
    assert abs(len(validation) - target) <= best + 1e-9


FORMS = [("x {}", "X {}"), ("x {}", " x {}\n"), ("x {}", "x  {}"), ("\u00e9 {}", "e\u0301 {}")]


@pytest.mark.parametrize(("form", "other"), FORMS, ids=["case", "ends", "blanks", "accents"])
@pytest.mark.parametrize("group_prefix", [None, 6])
def test_texts_that_differ_in_form_only_stay_together(
    form: str, other: str, group_prefix: int | None
) -> None:
    plain = {template.format(word): word for template in (form, other) for word in WORDS}
    train, validation = divide(list(plain), group_prefix=group_prefix)
    assert len(train) + len(validation) == 2 * len(WORDS)
    assert not {plain[text] for text in train} & {plain[text] for text in validation}


def test_texts_with_a_common_beginning_stay_together() -> None:
    train, validation = divide(WORDS, group_prefix=4)
    assert not {word[:4] for word in train} & {word[:4] for word in validation}
    apart = divide(WORDS)
    assert {word[:4] for word in apart[0]} & {word[:4] for word in apart[1]}


def test_an_empty_side_is_an_error() -> None:
    with pytest.raises(DataError, match="leaves no validation rows out of 1"):
        divide(["one"], fraction=0.9999)
    with pytest.raises(DataError, match="leaves no validation rows out of 2") as error:
        divide(["one", "One"], fraction=0.5)
    assert error.value.hint.startswith("All rows have only one text: add rows, or name other rows")
    with pytest.raises(DataError) as error:
        divide(["one", "on"], fraction=0.5, group_prefix=2)
    assert "change data.holdout.group_prefix" in error.value.hint
    rows = RowSet(Dataset.from_dict({"text": ["a", "b", "B"], "class": [0, 1, 1]}), "words.tsv")
    with pytest.raises(DataError) as error:
        hold_out(rows, "text", "class", HoldoutSection(fraction=0.5))
    assert error.value.hint.startswith("Each class has only one text: add rows, or name other rows")


def test_each_side_has_a_group_if_there_are_two() -> None:
    for fraction in (0.0001, 0.9999):
        train, validation = divide(["one", "two", "two"], fraction=fraction)
        assert sorted(map(len, (train, validation))) == [1, 2]
        assert ("one" in validation) == (fraction < 0.5)


def test_every_class_keeps_its_share() -> None:
    classes = [0] * 1000 + [1] * 500
    rows = RowSet(Dataset.from_dict({"text": WORDS, "class": classes}), "words.tsv")
    train, validation = hold_out(rows, "text", "class", HoldoutSection(fraction=0.1))
    assert sorted([*train, *validation]) == list(range(1500))
    assert [sum(classes[n] == number for n in validation) for number in (0, 1)] == [100, 50]


def test_a_class_is_on_both_sides_if_it_can_be() -> None:
    texts, classes = ["a", "b", "c", "d", "d", "D"], [0, 1, 1, 2, 2, 3]
    for fraction in (0.01, 0.99):
        rows = RowSet(Dataset.from_dict({"text": texts, "class": classes}), "words.tsv")
        train, validation = hold_out(rows, "text", "class", HoldoutSection(fraction=fraction))
        assert len(validation) == 1 and classes[validation[0]] == 1
        assert {0, 3, 4, 5} < set(train), "equal texts stay together, whatever their class"


def test_more_rows_of_a_class_move_few_groups() -> None:
    def held_out(texts: list[str]) -> set[str]:
        columns = {"text": texts, "class": [0] * len(texts)}
        rows = RowSet(Dataset.from_dict(columns), "words.tsv")
        return {texts[n] for n in hold_out(rows, "text", "class", HoldoutSection(fraction=0.2))[1]}

    before, after = held_out(WORDS[:1000]), held_out(WORDS[:1100])
    assert len(before - after) + len((after - before) & set(WORDS[:1000])) <= 15
