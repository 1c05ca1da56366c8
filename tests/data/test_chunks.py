import io
import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcft_cli.data.reading import read_chunks, read_file
from dcft_cli.errors import DataError
from dcft_cli.recipe import DataSection

FILES = {
    "a.jsonl": '{"a": "0"}\n\n{"a": "1"}\n{"a": ""}\n{"a": "3", "b": "x"}\n{"a": "4"}\n',
    "a.json": '[{"a": "0"},\n {"a": "1"}, {"a": null}, {"a": "3", "b": "x"}, {"a": "4"}]',
    "a.csv": 'a,b\n0,\n\n1,\n,\n3,"x"\n4,\n',
    "a.tsv": "a\tb\n0\t\n\n1\t\n\t\n3\tx\n4\t\n",
    "a.conll": "0 O\n0 O\n\n1 O\n\n2 O\n\n\n3 O\n\n4 O\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_chunks_are_the_rows_of_the_file(tmp_path: Path, name: str, size: int) -> None:
    (tmp_path / name).write_text(FILES[name])
    whole = read_file(str(tmp_path / name), DataSection())
    chunks = list(read_chunks(str(tmp_path / name), DataSection(), None, size))
    assert [record for rows in chunks for record in rows.records] == whole.records
    assert [number for rows in chunks for number in rows.numbers or ()] == whole.numbers
    assert [line for rows in chunks for line in rows.lines or ()] == (whole.lines or [])
    assert sum(rows.blank for rows in chunks) == whole.blank
    assert all(len(rows.records) + rows.blank <= size for rows in chunks)


def test_parquet_files_are_read_in_chunks(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pydict({"a": list(range(3000))}), tmp_path / "a.parquet")
    chunks = read_chunks(str(tmp_path / "a.parquet"), DataSection(), None, 1000)
    assert [len(rows.records) for rows in chunks] == [1000] * 3


@pytest.mark.parametrize("name", FILES)
def test_streams_have_the_format_that_the_recipe_sets(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name])
    suffix: Any = name.partition(".")[2].replace("json", "jsonl").replace("jsonll", "jsonl")
    stream = io.BytesIO(FILES[name].encode())
    (rows,) = read_chunks(stream, DataSection(format=suffix), None, 100)
    assert rows.records == read_file(str(tmp_path / name), DataSection()).records
    assert rows.source == "standard input"
    with pytest.raises(DataError, match="standard input: the format of the file"):
        next(read_chunks(stream, DataSection(), None, 100))


def test_a_pipe_is_read_while_it_is_written() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", buffering=0) as sender, os.fdopen(reading, "rb", 0) as receiver:
        chunks = read_chunks(receiver, DataSection(format="csv", columns=["a"]), None, 1)
        sender.write(b"first\n")
        assert next(chunks).records == [{"a": "first"}]
        sender.write(b"second\n")
        assert next(chunks).records == [{"a": "second"}]


def test_a_parquet_file_comes_through_a_pipe() -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pydict({"a": ["x", "y"]}), buffer)
    reading, writing = os.pipe()

    def send() -> None:
        with os.fdopen(writing, "wb") as sender:
            sender.write(buffer.getvalue())

    thread = threading.Thread(target=send)
    thread.start()
    with os.fdopen(reading, "rb") as receiver:
        chunks = list(read_chunks(receiver, DataSection(format="parquet"), None, 1))
    thread.join()
    assert [rows.records for rows in chunks] == [[{"a": "x"}], [{"a": "y"}]]


def test_problems_name_rows_and_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n\n1\n5,6\n1,2,3\n")
    first, second = read_chunks(str(tmp_path / "a.csv"), DataSection(), None, 3)
    with pytest.raises(DataError, match=r"in 1 row:\n  row 2 \(line 4\): 1 instead of 2"):
        first.raise_problems()
    with pytest.raises(DataError, match=r"in 1 row:\n  row 4 \(line 6\): 3 instead of 2"):
        second.raise_problems()
