"""What the command line says of a grid and a search, and how settings are written."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcft_cli.errors import UserError
from dcft_cli.recipe.ranges import Range, parse_range
from dcft_cli.recipe.schema import SweepSection
from dcft_cli.recipe.source import Source
from dcft_cli.sweeping.arguments import assignments, with_arguments


@pytest.mark.parametrize(
    ("argument", "key", "values"),
    [
        ("adapter.rank=1,2", "adapter.rank", [1, 2]),
        ("training.learning_rate=1e-3, 5e-3", "training.learning_rate", [1e-3, 5e-3]),
        ("adapter.targets=[Q, V],[Q]", "adapter.targets", [["Q", "V"], ["Q"]]),
        ("adapter={method: dcft, rank: 2},{}", "adapter", [{"method": "dcft", "rank": 2}, {}]),
        ("model.name=a/b", "model.name", ["a/b"]),
        ("training.warmup_steps=null,10", "training.warmup_steps", [None, 10]),
        ('data.label="1","a, b"', "data.label", ["1", "a, b"]),
        ("model.name=package://a/b,https://c", "model.name", ["package://a/b", "https://c"]),
    ],
)
def test_values_are_those_of_a_yaml_list(argument: str, key: str, values: list[Any]) -> None:
    assert with_arguments(None, grid=[argument]).grid == {key: values}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"grid": ["adapter.rank"]}, "is not KEY=VALUES"),
        ({"grid": ["adapter.rank="]}, "is not KEY=VALUES"),
        ({"grid": ["adapter={a: 1"]}, "not valid YAML"),
        ({"grid": ["adapter={a: 1, a: 2}"]}, "given twice"),
        ({"grid": ["adapter.rank=*x"]}, "not supported"),
        ({"tune": ["training.learning_rate=1e-3"]}, "must be LOW..HIGH"),
        ({"tune": ["training.learning_rate=1e-2..1e-3"]}, "lower than the second"),
        ({"tune": ["training.learning_rate=a..b"]}, "must be LOW..HIGH"),
    ],
)
def test_malformed_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        with_arguments(None, **arguments)
    assert words in error.value.message
    assert error.value.hint


def test_the_command_line_adds_to_the_recipe() -> None:
    section = SweepSection(grid={"adapter.rank": [1], "adapter.stride": [2]}, seeds=3)
    found = with_arguments(section, grid=["adapter.rank=4,5"], tune=["adapter.scale=1..8.0"])
    assert found.grid == {"adapter.rank": [4, 5], "adapter.stride": [2]}
    assert found.tune == {"adapter.scale": "1..8.0"}
    assert found.seeds == 3
    assert with_arguments(section, seeds=1).seeds == 1


def test_ranges() -> None:
    assert parse_range("1e-4..1e-2") == Range(1e-4, 1e-2)
    assert parse_range("1e-4..1e-2").is_log and not parse_range("0..0.3").is_log
    assert parse_range("1..8").is_whole and not parse_range("1..8.0").is_whole
    assert not parse_range("1..8").is_log
    assert parse_range(" -1 .. 1 ") == Range(-1, 1)


_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
_CHARACTERS = "ab01e.-+:,;#&*!|>'\"%@`~?/\\ []{}=\nü😀"
_TEXT = st.text(_CHARACTERS, max_size=12)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)


@given(_VALUES)
def test_a_setting_reads_back_as_the_same_value(value: Any) -> None:
    source = Source("recipe", {})
    source.override(assignments({"section.key": value}))
    assert source.problems == []
    assert source.values == {"section": {"key": value}}
