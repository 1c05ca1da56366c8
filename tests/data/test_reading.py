import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from dcft_cli.data import reading
from dcft_cli.data.reading import read_file, read_hub
from dcft_cli.data.rows import Rows
from dcft_cli.errors import DataError, UserError
from dcft_cli.recipe import DataSection


def read(path: Path, content: str | bytes, **data: Any) -> Rows:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    rows = read_file(str(path), DataSection(**data))
    rows.raise_problems()
    return rows


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSON", "a.ndjson"])
def test_jsonl(tmp_path: Path, name: str) -> None:
    rows = read(tmp_path / name, '\ufeff{"a": "x\u2028y"}\r\n\n{"a": 1, "b": null}')
    assert rows.records == [{"a": "x\u2028y"}, {"a": 1, "b": None}]
    assert rows.columns == ["a", "b"]
    assert rows.lines == [1, 3]
    assert rows.source == str(tmp_path / name)


def test_a_table_without_header_and_quoting(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    content = 'he said "no\t-1.5\n":-)\t2.0\n'
    rows = read(path, content, format="tsv", columns=["word", "rating"], quoting=False)
    assert rows.records == [
        {"word": 'he said "no', "rating": "-1.5"},
        {"word": '":-)', "rating": "2.0"},
    ]
    assert rows.lines == [1, 2]


def test_a_repeated_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a column name is used twice: a, b, a"):
        read(tmp_path / "a.csv", "a,b,a\n1,2,3\n")
    table = pa.Table.from_arrays([pa.array([1])] * 3, names=["a", "b", "a"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="a column name is used twice: a, b, a"):
        read_file(str(tmp_path / "a.parquet"), DataSection())


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "a\n1\n"), ("a.conll", "x O\n"), ("a.jsonl", '{"a": 1}'), ("a.json", '[{"a": 1}]')],
)
def test_a_missing_column(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(DataError, match="has no column `b`") as error:
        read(tmp_path / name, content).values("b", "data.label")
    assert error.value.hint.startswith("Choose columns with data.label")
    assert ("data.columns" in error.value.hint) == (name in ("a.csv", "a.conll"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_not_utf_8(tmp_path: Path, name: str) -> None:
    good = '{"a": "x"}' if name == "a.jsonl" else "a"
    with pytest.raises(DataError, match=r"line 2: not UTF-8 \(byte 4 of the line is 0xe9\)"):
        read(tmp_path / name, f"{good}\ncaf\u00e9\n".encode("latin-1"))


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    records = [{"a": "x", "answers": {"text": ["y"], "answer_start": [1]}}, {}, {"a": "z"}]
    pq.write_table(pa.Table.from_pylist(records), path)
    rows = read_file(str(path), DataSection())
    assert rows.records == [records[0], {"a": "z", "answers": None}]
    assert (rows.numbers, rows.blank) == ([1, 3], 1)
    assert rows.columns == ["a", "answers"]
    assert rows.lines is None


def test_decimals_are_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [Decimal("1.00"), Decimal("-2.50"), None, Decimal("12345678901234567.00")]
    table = pa.table({"a": ["x"] * 4, "b": pa.array(values)})
    pq.write_table(table, tmp_path / "a.parquet")
    monkeypatch.setattr(reading.datasets, "load_dataset", lambda *_, **__: Dataset(table))
    for rows in (
        read_file(str(tmp_path / "a.parquet"), DataSection()),
        read_hub(DataSection(hub="some/data"), "dev", ["b"]),
    ):
        numbers = rows.values("b", "data.label")
        assert numbers == [1, -2.5, None, 12345678901234567]
        assert [*map(type, numbers)] == [int, float, type(None), int]


def test_malformed_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a readable parquet file"):
        read(tmp_path / "a.parquet", "text")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
@pytest.mark.parametrize("content", ["", "\n\n", "a\n", "a\n \n"])
def test_a_file_without_rows(tmp_path: Path, name: str, content: str) -> None:
    if name == "a.jsonl":
        content = content.strip("a")
    with pytest.raises(DataError, match="has no rows"):
        read(tmp_path / name, content)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_file(str(tmp_path / "a.jsonl"), DataSection())
    with pytest.raises(DataError, match="is a folder"):
        read_file(str(tmp_path), DataSection())
    for name, hint in {"a.txt": "data.format", "a.xlsx": "CSV", "a.csv.gz": "Decompress"}.items():
        with pytest.raises(DataError, match="does not follow from its ending") as caught:
            read(tmp_path / name, "x")
        assert hint in caught.value.hint


def test_a_file_inside_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "tiny_words"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "words.tsv").write_text("word\nhello\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    rows = read_file("package://tiny_words/words.tsv", DataSection())
    assert rows.records == [{"word": "hello"}]
    assert rows.source == "package://tiny_words/words.tsv"
    with pytest.raises(UserError, match="is not installed"):
        read_file("package://no_such_words/words.tsv", DataSection())


def test_the_hub_cannot_be_reached() -> None:
    data = DataSection(hub="nyu-mll/glue", config="rte")
    with pytest.raises(DataError) as error:
        read_hub(data, "train", ["label"])
    assert error.value.message.startswith(
        "nyu-mll/glue (rte), split train could not be read from the Hub: "
    )
    assert "data.train=train.jsonl data.validation=dev.jsonl" in error.value.hint


def test_a_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*names: str | None, **settings: str | None) -> Dataset:
        assert names == ("some/data", None)
        assert settings == {"split": "dev", "revision": "v2"}
        return Dataset.from_dict({"a": ["", "x"], "idx": [0, 1], "label": [1, 0]})

    monkeypatch.setattr(reading.datasets, "load_dataset", load_dataset)
    rows = read_hub(DataSection(hub="some/data", revision="v2"), "dev", ["label", "a", "id"])
    assert rows.records == [{"a": "", "label": 1}, {"a": "x", "label": 0}]
    assert rows.columns == ["a", "idx", "label"]
    assert rows.source == "some/data, split dev"
    assert rows.texts("a") == ["", "x"], "published data may hold empty texts"


def test_an_empty_hub_split(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Dataset.from_dict({"a": []})
    monkeypatch.setattr(reading.datasets, "load_dataset", lambda *_, **__: empty)
    with pytest.raises(DataError, match=re.escape("some/data, split dev has no rows")):
        read_hub(DataSection(hub="some/data"), "dev", ["a"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.conll"])
def test_other_encodings_are_named(tmp_path: Path, name: str, encoding: str) -> None:
    with pytest.raises(DataError, match=r"is a text in UTF-(16|32)") as error:
        read(tmp_path / name, "a,b\nx,1\n".encode(encoding))
    shown = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    assert error.value.hint == f"Convert it: iconv -f {shown} -t UTF-8 OLD > NEW"


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"PK\x03\x04...", "Excel"), (b"\x1f\x8b\x08...", "gzip"), (b"PAR1...", "parquet file")],
)
def test_files_that_are_no_texts(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(DataError, match=rf"{what}.*, not a text file"):
        read(tmp_path / "a.csv", content)


def test_errors_of_the_operating_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        read_file(str(tmp_path / f"{'a' * 300}.csv"), DataSection())

    def forbidden(path: Path, mode: str) -> None:  # root may read everything
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a.csv").write_text("a\nb\n")
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(DataError, match=r"a\.csv cannot be read: Permission denied") as error:
        read_file(str(tmp_path / "a.csv"), DataSection())
    assert "permissions" in error.value.hint


@pytest.mark.parametrize("metadata", [b"\xff", b"{", b"3", b'{"info": {"features": {"a": 1}}}'])
def test_parquet_with_damaged_metadata(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"text": ["a"]}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet is not a readable parquet file"):
        read_file(str(tmp_path / "a.parquet"), DataSection())


def test_parquet_with_texts_that_are_not_utf8(tmp_path: Path) -> None:
    texts = pa.array([b"\xff\xfe"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="is not a readable parquet file"):
        read_file(str(tmp_path / "a.parquet"), DataSection())
