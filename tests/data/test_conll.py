from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from dcft_cli.data.reading import read_file
from dcft_cli.data.rows import Rows
from dcft_cli.errors import DataError
from dcft_cli.recipe import DataSection

CONLL_2003 = """\
    -DOCSTART- -X- -X- O

    EU NNP B-NP B-ORG
    rejects VBZ B-VP O

    -DOCSTART- -X- -X- O

    Peter NNP B-NP B-PER
    Blackburn NNP I-NP I-PER
    """


def read(folder: Path, content: str, name: str = "train.conll", **data: Any) -> Rows:
    path = folder / name
    path.write_text(dedent(content), "utf-8", newline="")
    rows = read_file(str(path), DataSection(**data), "conll")
    rows.raise_problems()
    return rows


def test_the_first_and_the_last_column(tmp_path: Path) -> None:
    rows = read(tmp_path, CONLL_2003)
    assert rows.columns == ["tokens", "column_2", "column_3", "ner_tags"]
    assert [row["tokens"] for row in rows.records] == [["EU", "rejects"], ["Peter", "Blackburn"]]
    assert [row["ner_tags"] for row in rows.records] == [["B-ORG", "O"], ["B-PER", "I-PER"]]
    assert rows.lines == [3, 8]


def test_the_recipe_names_the_columns(tmp_path: Path) -> None:
    rows = read(tmp_path, CONLL_2003, columns=["word", "pos", "chunk", "ner"])
    assert rows.records[0]["pos"] == ["NNP", "VBZ"]
    rows = read(tmp_path, CONLL_2003, text=["word"], label="ner")
    assert rows.columns == ["word", "column_2", "column_3", "ner"]


def test_a_comment_with_as_many_words_as_there_are_columns(tmp_path: Path) -> None:
    rows = read(tmp_path, "# text = A dog\na\tb\tc\tO\nd\te\tf\tO\n", columns=["w", "x", "y", "z"])
    assert rows.records == [{"w": ["a", "d"], "x": ["b", "e"], "y": ["c", "f"], "z": ["O", "O"]}]


@pytest.mark.parametrize("name", ["a.conll", "a.iob", "a.iob2", "a.bio", "a.txt", "A.TXT"])
def test_file_endings(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, "a O\n", name).records == [{"tokens": ["a"], "ner_tags": ["O"]}]


def test_the_recipe_sets_the_format(tmp_path: Path) -> None:
    assert read(tmp_path, "a O\n", "a.tsv", format="conll").records[0]["tokens"] == ["a"]


def test_tabs_separate_columns_if_most_lines_have_one(tmp_path: Path) -> None:
    rows = read(tmp_path, "New York\tB-LOC\r\nx  \tO\r\n\t\r\n#\tO\r\n")
    assert rows.records[0] == {"tokens": ["New York", "x"], "ner_tags": ["B-LOC", "O"]}
    assert rows.records[1] == {"tokens": ["#"], "ner_tags": ["O"]}
    assert read(tmp_path, "a  O  \nb \tO\n").records[0]["tokens"] == ["a", "b"]
    assert read(tmp_path, "\u00a0\u2028x O\n").records[0]["tokens"] == ["\u00a0\u2028x"]


def test_a_word_may_be_a_hash(tmp_path: Path) -> None:
    text = """\
        # id 5 domain=en
        # O
        1 B-X

        # id 6 domain=en
        # text
        #x O
        # a comment within
        2 O
        """
    rows = read(tmp_path, text.replace("# text\n", "# text = #x 2\n"))
    assert [row["tokens"] for row in rows.records] == [["#", "1"], ["#x", "2"]]
    assert rows.lines == [2, 7]


def test_a_line_with_another_number_of_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, "a O\nb c O\n\nd\ne O\nf O\n")
    assert error.value.message.splitlines()[1:] == [
        "  row 1 (line 1): line 2: 3 instead of 2, 'b c O'",
        "  row 2 (line 4): line 4: 1 instead of 2, 'd'",
    ]
    with pytest.raises(DataError, match="line 1: 2 instead of 3, 'a O'") as error:
        read(tmp_path, "a O\n", columns=["a", "b", "c"])
    assert "a, b, c" in error.value.hint


def test_words_without_labels(tmp_path: Path) -> None:
    rows = read(tmp_path, "a\nb\n\nc\n")
    assert rows.columns == ["tokens"]
    assert rows.records == [{"tokens": ["a", "b"]}, {"tokens": ["c"]}]


@pytest.mark.parametrize("text", ["", "\n\n", "-DOCSTART- O\n\n"])
def test_a_file_without_sentences(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="has no rows"):
        read(tmp_path, text)


CONLLU = """\
# newpar
# text = au revoir
1-2\tau\t_\t_\t_\t_\t_\t_\t_\t_
1\tà\tà\tADP\t_\t_\t0\troot\t_\t_
2\tle\tle\tDET\t_\tGender=Masc\t1\tdet\t_\t_
2.1\tbon\tbon\tADJ\t_\t_\t_\t_\t_\t_

# text = 3 000 _
1\t3 000\t3 000\tNUM\t_\t_\t0\troot\t_\t_
2\t_\t_\tSYM\t_\t_\t1\tdep\t_\t_
"""
NAMES = "id form lemma upos xpos feats head deprel deps misc".split()


@pytest.mark.parametrize("settings", [{}, {"format": "conll", "columns": NAMES}])
def test_conllu(tmp_path: Path, settings: dict[str, Any]) -> None:
    name = "train.txt" if settings else "train.conllu"
    rows = read(tmp_path, CONLLU, name, **settings)
    assert rows.columns == [*NAMES, "tokens"]
    assert [row["form"] for row in rows.records] == [["à", "le"], ["3 000", "_"]]
    assert [row["tokens"] for row in rows.records] == [["à", "le"], ["3 000", "_"]]
    assert [row["upos"] for row in rows.records] == [["ADP", "DET"], ["NUM", "SYM"]]
    assert rows.records[0]["feats"] == [None, "Gender=Masc"]
    assert rows.lines == [4, 9]


def test_a_malformed_line_of_a_conllu_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1 \(line 1\): line 2: 2 instead of 10, '2 b'"):
        read(tmp_path, f"1\ta{'	_' * 8}\n2\tb\n", "train.conllu")
