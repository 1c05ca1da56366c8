import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcft_cli.data.reading import read_file
from dcft_cli.data.rows import Rows
from dcft_cli.data.tables import read_table
from dcft_cli.errors import DataError, RecipeError
from dcft_cli.recipe import DataSection, load_recipe


def read(folder: Path, content: str, name: str = "a.csv", **data: Any) -> Rows:
    path = folder / name
    path.write_text(content, "utf-8", newline="")
    rows = read_file(str(path), DataSection(**data))
    rows.raise_problems()
    return rows


def texts(rows: Rows, column: str = "a") -> list[Any]:
    return rows.values(column, "data.text")


CELLS = st.text('ab ,"\n\t;é', max_size=6)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1), st.sampled_from(",\t;"))
def test_tables_of_the_csv_module_are_read_as_they_were(
    rows: list[list[str]], delimiter: str
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator="\r\n").writerows([["x", "y"], *rows])
    data = DataSection(quoting=True, delimiter=delimiter)
    lines = iter(io.StringIO(file.getvalue(), newline="\n"))
    _, read_rows = read_table(lines, "a.csv", data, ",")
    found = [list(row.values.values()) for row in read_rows]  # type: ignore[union-attr]
    kept = [row if any(cell.strip() for cell in row) else [] for row in rows]
    assert found == kept


@given(st.lists(st.tuples(*[st.text('a "', min_size=1, max_size=5)] * 2), min_size=1))
def test_every_line_of_an_unquoted_tsv_file_is_a_row(rows: list[tuple[str, str]]) -> None:
    lines = iter(["x\ty\n", *(f"{a}\t{b}\n" for a, b in rows)])
    _, read_rows = read_table(lines, "a.tsv", DataSection(), "\t")
    expected = [
        [re.sub(r'^"((?:[^"]|"")*)"$', lambda m: m[1].replace('""', '"'), cell) for cell in row]
        for row in rows
    ]
    kept = [row if any(cell.strip() for cell in row) else [] for row in expected]
    assert [list(row.values.values()) for row in read_rows] == kept  # type: ignore[union-attr]


MARKS = ["x y\tneg", '" one more\tpos', "two\tneg", 'three "\tpos', 'x "y" z\tneg', '"\tpos']


def test_stray_quotation_marks_in_tsv_files_are_part_of_the_texts(tmp_path: Path) -> None:
    rows = read(tmp_path, "\n".join(["a\tb", *MARKS]) + "\n", "a.tsv")
    assert texts(rows) == [line.partition("\t")[0] for line in MARKS]
    assert rows.lines == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "line", ['"Good" film\tx', 'say "no"\tx', '"a "b" c"\tx', 'x\t"y', '"never closed\tx']
)
def test_tsv_fields_that_are_not_quoted_as_a_whole(tmp_path: Path, line: str) -> None:
    rows = read(tmp_path, f"a\tb\nfirst\tx\n{line}\n", "a.tsv")
    assert list(rows.records[1].values()) == line.split("\t")


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ('"Good film"\tx', ["Good film", "x"]),
        ('"a\tb"\tx', ["a\tb", "x"]),
        ('"say ""no"""\tx', ['say "no"', "x"]),
        ('"two\nlines"\tx', ["two\nlines", "x"]),
        ('x\t"two\n\nparagraphs"', ["x", "two\n\nparagraphs"]),
    ],
)
def test_quoted_fields_of_tsv_files(tmp_path: Path, line: str, fields: list[str]) -> None:
    rows = read(tmp_path, f"a\tb\nfirst\tx\n{line}\nlast\ty\n", "a.tsv")
    assert [list(row.values()) for row in rows.records] == [["first", "x"], fields, ["last", "y"]]


LETTER = 'a,b\nfirst,1\n"Dear Sir,\nthanks, a lot,\n\nbye",2\nlast,3\n'


def test_texts_of_several_lines_in_csv_files(tmp_path: Path) -> None:
    rows = read(tmp_path, LETTER)
    assert texts(rows) == ["first", "Dear Sir,\nthanks, a lot,\n\nbye", "last"]
    assert rows.lines == [2, 3, 7]
    assert len(read(tmp_path, 'a\n"one\ntwo"\nthree\n').records) == 2


TEXTS = [
    "Roses are red,\nViolets are blue,\nSugar is sweet,\n",
    "Dear Sir, dear Madam,\nthank you, thank you,\nbye, bye",
    "Yes, no, maybe\nred, green, blue\none, two",
    "1, 2,\n3, 4,\n5, 6,",
]
"""Whose lines have as many commas as a row of two or three columns, or nearly so."""


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_texts_with_commas_over_several_lines(
    tmp_path: Path, text: str, before: bool, width: int
) -> None:
    others = [["", "x"], ["y", ""], ["", ""], ["y", "x"]]
    cells = [["x", *more][: width - 1] for more in others]
    rows = [[*row, text] if before else [text, *row] for row in cells]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(["abcd"[:width], *rows])
    found = read_file(str(tmp_path / "a.csv"), DataSection()).records
    assert [list(record.values()) for record in found] == rows


def test_rows_in_a_quoted_field_of_a_csv_file_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="runs over 4 lines"):
        read(tmp_path, 'a,b\n" two,0\nthree,\nfour,1\nfive ",0\n')
    for last in ("", "some"):
        with pytest.raises(DataError, match="line 3: a quoted field runs over 3 lines"):
            read(tmp_path, f'a,b,c\none,0,\n"two,0,\nthree,1,\nfour",0,{last}\nfive,1,\n')
    content = 'a,b\none,1\n" two,0\nthree,1\nfour ",0\nfive,1\n'
    with pytest.raises(DataError, match=r"a\.csv, line 3: a quoted field runs over 3 lines") as err:
        read(tmp_path, content)
    assert "data.quoting=false" in err.value.hint and "data.quoting=true" in err.value.hint
    assert texts(read(tmp_path, content, quoting=False)) == [
        "one",
        '" two',
        "three",
        'four "',
        "five",
    ]
    assert texts(read(tmp_path, content, quoting=True))[1] == " two,0\nthree,1\nfour "


def test_lines_of_one_column_and_a_quotation_mark_are_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row from line 2: a quotation mark does not") as error:
        read(tmp_path, 'a\n"one\ntwo"\n', "a.tsv")
    assert "data.quoting=true" in error.value.hint


@pytest.mark.parametrize("line", ['"x" y,1', '"x,1'])
def test_malformed_quoting_in_csv_files(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match="row from line 3: a quot") as error:
        read(tmp_path, f"a,b\nx,1\n{line}\n")
    assert "data.quoting=false" in error.value.hint


@pytest.mark.parametrize("mark", ["", '"'])
@pytest.mark.parametrize("column", ["a", "b"])
def test_long_fields(tmp_path: Path, mark: str, column: str) -> None:
    long = "x" * 300_000
    values = {"a": "1", "b": "2", column: long}
    rows = read(tmp_path, f"a,b\n{mark}{values['a']}{mark},{mark}{values['b']}{mark}\n")
    assert rows.records == [values]


def test_the_recipe_sets_the_delimiter(tmp_path: Path) -> None:
    assert texts(read(tmp_path, 'a;b\n"x;y";1\n', delimiter=";")) == ["x;y"]
    assert texts(read(tmp_path, "a|b\nx|1\n", "a.txt", format="csv", delimiter="|")) == ["x"]
    (tmp_path / "own.yaml").write_text("model: {name: m}\ntask: {type: regression}\n")
    for value in (r"data.delimiter=\t", r'data.delimiter="\t"'):
        assert load_recipe(str(tmp_path / "own.yaml"), [value]).recipe.data.delimiter == "\t"
    for value in ("data.delimiter=;;", 'data.delimiter="\\n"', "data.delimiter='\"'"):
        with pytest.raises(RecipeError, match=r"data\.delimiter"):
            load_recipe(str(tmp_path / "own.yaml"), [value])


@pytest.mark.parametrize(
    ("name", "delimiter", "shown", "setting"),
    [
        ("a.csv", ";", "';'", '";"'),
        ("a.csv", "\t", "a tab", r'"\t"'),
        ("a.tsv", ",", "','", '","'),
        ("a.tsv", ";", "';'", '";"'),
    ],
)
def test_another_delimiter_is_noticed(
    tmp_path: Path, name: str, delimiter: str, shown: str, setting: str
) -> None:
    content = "text,label\nHello,1\n".replace(",", delimiter)
    with pytest.raises(DataError, match=f"has {shown} between its columns") as error:
        read(tmp_path, content, name)
    assert error.value.hint == f"Set data.delimiter={setting}."
    with pytest.raises(DataError, match="1 instead of 2") as error:
        read(tmp_path, content, name, columns=["text", "label"])
    assert f"data.delimiter={setting}" in error.value.hint


def test_columns_without_a_name_are_left_out(tmp_path: Path) -> None:
    rows = read(tmp_path, "a,b,,\nx,1,,\ny,2\n,,,\nz,3,\n")
    assert rows.columns == ["a", "b"]
    assert rows.records == [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}, {"a": "z", "b": "3"}]
    assert rows.blank == 1
    with pytest.raises(DataError, match=r"without a name in 1 row:\n  row 1 \(line 2\): '5'"):
        read(tmp_path, "a,b,,\nx,1,,5\n")
    numbered_by_pandas = read(tmp_path, ",a,b\n0,x,1\n1,y,2\n")
    assert numbered_by_pandas.records == [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}]


def test_a_header_line_in_the_middle(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the header line again in 1 row:\n  row 2 \(line 3\)"):
        read(tmp_path, "a,b\nx,1\na,b\ny,2\n")
    with pytest.raises(DataError, match="the header line again in 1 row"):  # of `cat a.csv b.csv`
        read(tmp_path, "\ufeffa,b\nx,1\n\ufeffa,b\ny,2\n")


def test_blank_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = read(tmp_path, "a,b\nx,1\n,\n  ,\n,,,,\n\ny,2\n")
    assert texts(rows) == ["x", "y"]
    assert (rows.numbers, rows.lines) == ([1, 5], [2, 7])
    assert rows.notes == [f"{tmp_path / 'a.csv'}: 3 blank rows dropped"]


def test_all_problems_of_rows_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\nx,1\ny\na,b\n1,2,3\n")
    rows = read_file(str(path), DataSection())
    assert texts(rows) == ["x"]
    rows.report(["is bad"], "another problem", "Do this.")
    with pytest.raises(DataError) as error:
        rows.raise_problems()
    assert error.value.message.splitlines() == [
        f"{path}: wrong number of fields in 2 rows:",
        "  row 2 (line 3): 1 instead of 2",
        "  row 4 (line 5): 3 instead of 2",
        f"{path}: the header line again in 1 row:",
        "  row 3 (line 4): names the columns",
        f"{path}: another problem in 1 row:",
        "  row 1 (line 2): is bad",
    ]
    assert error.value.hint == (
        "Each row needs one field per column (a, b).\nRemove these lines.\nDo this."
    )


def test_lines_of_old_macs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="carriage returns only"):
        read(tmp_path, "a,b\rx,1\ry,2\r")
