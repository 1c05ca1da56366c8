"""A few hundred mutated files of each kind; `python -m tests.fuzz` checks as many as you like."""

from pathlib import Path
from random import Random
from types import ModuleType

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dcft_cli.errors import UserError
from tests.fuzz import adapters, data, recipes

few = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
choices = st.randoms(use_true_random=False)

SEEDS: dict[ModuleType, list[bytes]] = {}


@pytest.fixture(params=[adapters, recipes, data], ids=["adapters", "recipes", "data"])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    found: ModuleType = request.param
    if found not in SEEDS:
        SEEDS[found] = found.seeds(tmp_path_factory.mktemp("seeds"))
    return found


def test_unchanged_files_are_accepted(kind: ModuleType, tmp_path: Path) -> None:
    for seed in SEEDS[kind]:
        assert kind.check(seed, tmp_path / "case")


@few
@given(random=choices, number=st.integers(0, 99))
def test_success_or_an_error_for_users(
    kind: ModuleType, tmp_path: Path, random: Random, number: int
) -> None:
    seed = SEEDS[kind][number % len(SEEDS[kind])]
    assert succeeds_or_explains(kind, kind.mutate(seed, random), tmp_path)


@few
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@example(b"")
@example(b"\xff\xfe\x00")
@example(b'{"a": ' + b"[" * 100_000)
@example(b"zz: " + b"[" * 20_000)
@example(b"zz: " + b"{a: " * 20_000)
@example(b"- " * 20_000)
@example(b"? " * 20_000)
def test_any_bytes(kind: ModuleType, tmp_path: Path, content: bytes) -> None:
    assert succeeds_or_explains(kind, content, tmp_path)


def succeeds_or_explains(kind: ModuleType, case: bytes, folder: Path) -> bool:
    """Read a file; return whether it was read, or refused with a message. Other errors pass."""
    try:
        return bool(kind.check(case, folder / "case"))
    except UserError as error:
        return bool(error.message)
