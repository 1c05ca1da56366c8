"""Run folders: never two runs in one."""

import json
from pathlib import Path

import pytest

from dcft_cli.errors import RunError
from dcft_cli.sweeping.folders import RECORD, last_event, record, run_folder


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    first = run_folder(tmp_path, "rank2", "0123456789", create=True)
    assert first == tmp_path / "rank2"
    assert run_folder(tmp_path, "rank2", "0123456789") == first
    assert run_folder(tmp_path, "rank2", "0123456789", create=True) == first
    other = run_folder(tmp_path, "rank2", "abcdefghij", create=True)
    assert other == tmp_path / "rank2-abcdefgh"
    assert run_folder(tmp_path, "rank2", "abcdefghij", create=True) == other


def test_looking_creates_nothing(tmp_path: Path) -> None:
    assert run_folder(tmp_path / "out", "rank2", "0123456789") == tmp_path / "out" / "rank2"
    assert not list(tmp_path.iterdir())


def test_runs_of_other_commands_are_left_alone(tmp_path: Path) -> None:
    for name in ("rank2", "rank2-01234567"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text("{}")
        if name == "rank2":
            assert run_folder(tmp_path, "rank2", "0123456789").name == "rank2-01234567"
    with pytest.raises(RunError, match="contains another run"):
        run_folder(tmp_path, "rank2", "0123456789", create=True)


def test_a_record_that_was_cut_off_belongs_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "rank2").mkdir()
    (tmp_path / "rank2" / RECORD).write_text('{"key": "0123')
    assert run_folder(tmp_path, "rank2", "0123456789", create=True).name == "rank2-01234567"


def test_events(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "rank2", "0123456789", create=True)
    assert last_event(folder) is None
    record(folder, "started")
    record(folder, "failed", message="why")
    assert last_event(folder) == "failed"
    lines = [json.loads(line) for line in (folder / RECORD).read_text().splitlines()]
    assert lines[0] == {"key": "0123456789"}
    assert [line["event"] for line in lines[1:]] == ["started", "failed"]
    assert lines[1]["pid"] == lines[2]["pid"] and lines[2]["message"] == "why"
    with (folder / RECORD).open("a") as file:
        file.write('{"event": "st')
    assert last_event(folder) == "failed"
