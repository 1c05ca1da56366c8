"""Rows out: jsonl, csv, tsv and parquet."""

import csv
import datetime
import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dcft_cli.data import writing
from dcft_cli.data.reading import read_file
from dcft_cli.data.writing import check_output, write_rows
from dcft_cli.errors import DataError, UserError
from dcft_cli.recipe import DataSection

ROWS = [
    {"id": 1, "text": 'a "b", c\nd', "start": None, "probabilities": {"x": 0.25, "y": 0.75}},
    {"id": 2, "text": "é", "start": 3, "probabilities": {"x": 1, "y": 0.0}, "entities": []},
    {"id": 3, "text": "z", "start": 4, "entities": [{"type": "T", "end": 1}]},
]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_CHUNK", 1)  # columns and types change from chunk to chunk


def test_lines(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", ROWS)
    lines = (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    assert "é" in lines[1]
    assert [*read_file(str(tmp_path / "rows.jsonl"), DataSection()).records] == ROWS


@pytest.mark.parametrize(("name", "delimiter"), [("rows.csv", ","), ("rows.tsv", "\t")])
def test_tables(name: str, delimiter: str, tmp_path: Path) -> None:
    write_rows(tmp_path / name, ROWS)
    with (tmp_path / name).open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file, delimiter=delimiter))
    columns = ["id", "text", "start", "probabilities.x", "probabilities.y", "entities"]
    assert [*found[0]] == columns
    assert [[row[c] for c in columns] for row in found] == [
        ["1", ROWS[0]["text"], "", "0.25", "0.75", ""],
        ["2", "é", "3", "1", "0.0", "[]"],
        ["3", "z", "4", "", "", '[{"type": "T", "end": 1}]'],
    ]


def test_parquet(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", ROWS)
    table = pq.read_table(tmp_path / "rows.parquet")
    assert str(table.schema.field("start").type) == "int64"
    assert table.to_pylist() == [
        ROWS[0] | {"entities": None},
        ROWS[1],
        ROWS[2] | {"probabilities": None},
    ]


@pytest.mark.parametrize("rows", [[{"a": 1}, {"a": "x"}], [{"a": {}}]])
def test_what_parquet_cannot_hold(rows: list[writing.Row], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"parquet file cannot hold .*column `a`"):
        write_rows(tmp_path / "rows.parquet", rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_no_rows(name: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "new" / name, [])
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_values_that_json_lacks(tmp_path: Path) -> None:
    gap = float("nan")
    nested = {"list": [gap, 1], "deep": ({"x": [-math.inf]},)}
    rows = [{"day": datetime.date(2024, 2, 29), "half": "\ud83d", "gap": gap} | nested]
    write_rows(tmp_path / "rows.jsonl", rows)
    text = (tmp_path / "rows.jsonl").read_text("utf-8")
    assert json.loads(text) == {
        "day": "2024-02-29",
        "half": "\ud83d",
        "gap": None,
        "list": [None, 1],
        "deep": [{"x": [None]}],
    }


def test_unknown_endings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.xlsx: the format does not follow") as error:
        write_rows(tmp_path / "rows.xlsx", [])
    assert ".parquet" in error.value.hint


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    check_output(tmp_path / "new" / "folder" / "rows.csv")
    with pytest.raises(UserError, match="cannot be created in"):
        check_output(tmp_path / "file" / "rows.csv")
    with pytest.raises(UserError, match="is a folder"):
        check_output(tmp_path / "folder.csv")


def test_an_error_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("before")

    def failing():  # type: ignore[no-untyped-def]
        yield ROWS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(path, failing())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
