"""Processes as the environment describes them."""

import json
import os
from pathlib import Path

import pytest

from dcft_cli.errors import UserError
from dcft_cli.processes import (
    has_lost_another,
    is_launched,
    is_reporter,
    launched_environment,
    process_count,
    process_rank,
    record_error,
)


def test_alone() -> None:
    assert (process_count(), process_rank()) == (1, 0)
    assert is_reporter() and not is_launched()
    assert not has_lost_another(RuntimeError("Connection closed by peer"))


@pytest.mark.parametrize("rank", ["0", "1"])
def test_one_process_of_torchrun_reports(rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    assert is_reporter()  # some clusters set it for processes that are no group
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert is_reporter() == (rank == "0")
    assert has_lost_another(RuntimeError("[gloo] Connection closed by peer"))
    assert not has_lost_another(UserError("A download failed: Connection reset by peer", ""))


def test_the_parent_reports_for_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in launched_environment().items():
        monkeypatch.setenv(name, value)
        assert is_reporter() and not is_launched()  # this process is the parent
        monkeypatch.setenv(name, str(os.getppid()))
    assert is_launched() and not is_reporter()


def test_an_error_is_left_for_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_error(UserError("nobody asks"))
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    record_error(UserError("What", "how"))
    found = json.loads((tmp_path / "error.json").read_text())
    assert (found["message"], found["hint"]) == ("What", "how")
