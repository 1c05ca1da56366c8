import json
from pathlib import Path
from typing import Any

import pytest

from dcft_cli.data.reading import read_file
from dcft_cli.data.rows import Rows
from dcft_cli.errors import DataError
from dcft_cli.recipe import DataSection

ROWS = [{"a": "x", "b": 1}, {"a": "y", "c": [2]}]


def read(folder: Path, content: str) -> Rows:
    (folder / "a.json").write_text(content, "utf-8")
    rows = read_file(str(folder / "a.json"), DataSection())
    rows.raise_problems()
    return rows


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_an_array_of_rows(tmp_path: Path, indent: int | None) -> None:
    rows = read(tmp_path, "\n" + json.dumps(ROWS, indent=indent))
    assert rows.records == ROWS
    assert rows.columns == ["a", "b", "c"]
    assert (rows.lines, rows.numbers) == (None, [1, 2])


def test_an_array_with_other_values(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a JSON object in 1 row:\n  row 2: 'x'"):
        read(tmp_path, '[{"a": 1},\n"x"]')
    with pytest.raises(DataError, match=r"a\.json, line 2: malformed JSON: at character 8"):
        read(tmp_path, '[{"a": 1},\n{"a": 1]')


def test_one_object_over_several_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one JSON object over several lines") as error:
        read(tmp_path, json.dumps(ROWS[0], indent=1))
    assert "jq -c . OLD > NEW" in error.value.hint


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("9" * 5000, "a number with too many digits"),
        ("[" * 100_000 + "]" * 100_000, "nested too deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deep"),
    ],
    ids=["digits", "lists", "objects"],
)
def test_values_beyond_the_limits_of_python(tmp_path: Path, value: str, problem: str) -> None:
    with pytest.raises(DataError, match=rf"in 1 row:\n  row 2 \(line 3\): {problem}"):
        read(tmp_path, f'{{"a": 1}}\n\n{{"a": 2, "b": {value}}}\n')
    with pytest.raises(DataError, match=problem):
        read(tmp_path, f'[{{"a": 2, "b": {value}}}]')


def test_all_malformed_lines_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, '{"a": 1}\n{"a": \n[2]\n{"a": 3}{}\n')
    assert error.value.message.splitlines() == [
        f"{tmp_path / 'a.json'}: malformed JSON in 2 rows:",
        "  row 2 (line 2): at character 6 (Expecting value)",
        "  row 4 (line 4): at character 9 (Extra data)",
        f"{tmp_path / 'a.json'}: not a JSON object in 1 row:",
        "  row 3 (line 3): [2]",
    ]
    assert "Each line is one JSON object" in error.value.hint


def test_lines_after_a_squad_file(tmp_path: Path) -> None:
    paragraph = {"context": "c", "qas": [{"question": "q", "answers": []}]}
    squad = json.dumps({"data": [{"paragraphs": [paragraph]}]})
    assert read(tmp_path, squad + "\n").records[0]["question"] == "q"
    with pytest.raises(DataError, match="more after the end of the file's only object in 1 row"):
        read(tmp_path, f"{squad}\n{squad}\n")


def test_questions_of_a_squad_file_without_answers(tmp_path: Path) -> None:
    questions: list[dict[str, Any]] = [{"question": "q"}, {"question": "r", "answers": None}]
    squad = {"data": [{"paragraphs": [{"context": "c", "qas": questions}]}]}
    rows = read(tmp_path, json.dumps(squad))
    assert [record["question"] for record in rows.records] == ["q", "r"]
    assert rows.columns == ["id", "title", "context", "question"]
    questions[1]["answers"] = [{"text": "c", "answer_start": 0}]
    rows = read(tmp_path, json.dumps(squad, indent=1))
    assert rows.values("answers", "data.label") == [None, {"text": ["c"], "answer_start": [0]}]


@pytest.mark.parametrize("depth", [101, 900, 100_000])
def test_deep_nesting_is_named_with_its_line(tmp_path: Path, depth: int) -> None:
    deep = '{"a": ' + "[" * depth + "]" * depth + "}"
    with pytest.raises(DataError, match=r"row 2 \(line 2\): nested too deep"):
        read(tmp_path, f'{{"a": "x"}}\n{deep}\n')
    with pytest.raises(DataError, match="nested too deep"):
        read(tmp_path, f'[{{"a": "x"}},\n{deep}]')


def test_texts_may_have_many_brackets(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps({"a": "[" * 1000})).records == [{"a": "[" * 1000}]
    wide = {"a": [[] for _ in range(1000)]}
    assert read(tmp_path, json.dumps(wide)).records == [wide]
