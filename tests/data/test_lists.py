import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcft_cli.data.lists import written_list

NAMES = st.text("ab ',\"\\]\n-é1", max_size=8)


@given(st.lists(NAMES))
def test_lists_as_python_numpy_and_json_write_them(names: list[str]) -> None:
    assert written_list(str(names)) == names
    assert written_list(json.dumps(names)) == names
    assert written_list(str(np.array(names, dtype=object))) == names
    assert written_list(str([np.str_(name) for name in names])) == names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", []),
        (" [ ] ", []),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("['a',]", ["a"]),
        ("[1, 2]", [1, 2]),
        ("[1. 0.]", [1.0, 0.0]),
        ("[1 0 -1]", [1, 0, -1]),
        ("[True, None]", [True, None]),
        ("[true, null]", [True, None]),
        (r'["\u00e9"]', ["é"]),
    ],
)
def test_other_items(text: str, expected: list[object]) -> None:
    assert written_list(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "[",
        "[spam]",
        "[a, b]",
        "[A]|[B]",
        "[...]",
        "['a'",
        "['a''b']",
        "['a'] or ['b']",
        "[1, 2]x",
    ],
)
def test_texts_that_are_no_lists(text: str) -> None:
    assert written_list(text) is None


def test_long_texts_are_no_problem() -> None:
    for text in ("[" * 100_000 + "]" * 100_000, "['" + "a" * 10**6, "['a' " * 10**5 + "("):
        assert written_list(text) is None
        assert written_list(text + "]") is None
