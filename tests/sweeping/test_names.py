"""Names of runs: short, readable, unique."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcft_cli.sweeping.names import number, run_names


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"": "lora", "training.learning_rate": 1e-3}, "lora-lr1e-3"),
        ({"adapter.kernel_size": 8, "adapter.stride": 4}, "kernel8-stride4"),
        ({"adapter.init": "zero"}, "init-zero"),
        ({"adapter.targets": ["Q", "V"]}, "targets-Q-V"),
        ({"adapter": {"method": "lora", "rank": 2}}, "lora-rank2"),
        ({"model.name": "microsoft/deberta-v3-base"}, "deberta-v3-base"),
        ({"data.train": "package://words/small.csv"}, "small"),
        ({"training.group_by_length": False}, "groupbylength-false"),
        ({"training.warmup_steps": None}, "warmupsteps-null"),
        ({"": "a / b: c"}, "b-c"),
        ({}, "recipe"),
    ],
)
def test_what_differs_is_the_name(settings: dict[str, Any], name: str) -> None:
    assert run_names([settings], "recipe") == [name]


def test_names_that_are_alike_get_a_hash() -> None:
    alike = [{"adapter.targets": ["Q", "V"]}, {"adapter.targets": ["q-v"]}, {"": "other"}]
    first, second, other = run_names(alike, "recipe")
    assert first.startswith("targets-Q-V-") and second.startswith("targets-q-v-")
    assert first.lower() != second.lower()
    assert other == "other"
    assert run_names(alike, "recipe") == [first, second, other]


def test_long_names_are_cut() -> None:
    (name,) = run_names([{"": "long" * 50}], "recipe")
    assert len(name) < 100


_KEYS = st.sampled_from(["", "adapter.init", "adapter.rank", "model.name"])
_TEXTS = ("", "a", "A", "a/b", "b", "..", "-", "a b", "a-b", "1", "true", "ü", "\n")
_VALUES = st.sampled_from(_TEXTS) | st.integers() | st.booleans()


def _sorted(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


@given(st.lists(st.dictionaries(_KEYS, _VALUES), max_size=6, unique_by=_sorted))
def test_names_are_unique_folder_names(settings: list[dict[str, Any]]) -> None:
    names = run_names(settings, "recipe")
    assert len({name.lower() for name in names}) == len(settings)
    assert all(name and not set(name) & set('/\\:*?"<>| ') for name in names)
    assert not any(name.startswith(".") for name in names)


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_numbers_keep_their_value(value: float) -> None:
    assert float(number(value)) == value


def test_numbers_are_short() -> None:
    values = [1e-3, 5e-4, 2.5e-5, 0.05, 0.5, 1.0, 32.0, 1e6]
    assert [*map(number, values)] == ["1e-3", "5e-4", "2.5e-5", "0.05", "0.5", "1", "32", "1e6"]
