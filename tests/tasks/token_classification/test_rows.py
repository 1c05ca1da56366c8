import csv
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcft_cli.data import reading
from dcft_cli.errors import DataError
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.tasks import load_task
from tests.tasks.conftest import Write, load_own

TAGS = ("B-LOC", "B-PER", "I-PER", "O")


def row(words: str, tags: str, **others: Any) -> dict[str, Any]:
    return {"tokens": words.split(), "ner_tags": tags.split(), **others}


ROWS = [row("ann lee is in rome", "B-PER I-PER O O B-LOC"), row("she is tall", "O O O")]
load = partial(load_own, "token_classification")


def test_labels_are_found_in_the_training_data(jsonl: Write) -> None:
    loaded = load(jsonl(ROWS))
    assert loaded.task.labels == TAGS
    assert loaded.train is not None
    assert loaded.train.dataset[:] == {
        "text": ["ann lee is in rome", "she is tall"],
        "words": [row["tokens"] for row in ROWS],
        "labels": [[1, 2, 3, 3, 0], [3, 3, 3]],
    }
    assert loaded.task.label_counts(loaded.train.dataset) == {0: 1, 1: 1, 2: 1, 3: 5}


def test_a_conll_file_gives_the_same_rows(tmp_path: Path, jsonl: Write) -> None:
    path = tmp_path / "train.txt"
    lines = [" ".join(word) for row in ROWS for word in [*zip(*row.values(), strict=True), ()]]
    path.write_text("\n".join(lines))
    assert load(str(path)).validation[""].dataset[:] == load(jsonl(ROWS)).validation[""].dataset[:]


def test_labels_may_be_class_numbers_of_the_recipe(jsonl: Write) -> None:
    path = jsonl([{"w": ["a", "b"], "l": [3, "B-PER"]}, {"w": ["c"], "l": [0.0]}])
    loaded = load(path, list(TAGS), text="w", label="l")
    assert loaded.validation[""].dataset["labels"][:] == [[3, 1], [0]]


def test_numbers_are_no_positions_among_labels_that_were_found(jsonl: Write) -> None:
    numbered = jsonl([{"tokens": ["a"], "ner_tags": [1]}], "dev.jsonl")
    with pytest.raises(DataError, match="`ner_tags` word 1 is 1") as error:
        load(jsonl(ROWS), validation=numbered)
    assert "name the classes in order" in error.value.hint


def test_a_hub_data_set_names_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = datasets.ClassLabel(names=["2", "1"])  # that look like numbers
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(names)}
    )
    rows = {"tokens": [["a", "b"], []], "ner_tags": [[0, 1], []]}
    hub = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(reading.datasets, "load_dataset", lambda *_, **__: hub)
    section = DataSection(hub="some/data", validation="dev")
    loaded = load_task(TaskSection(type="token_classification"), section)
    assert loaded.task.labels == ("2", "1")
    assert loaded.validation[""].dataset["labels"][:] == [[0, 1], []]
    own = TaskSection(type="token_classification", labels=["x", "y"])
    assert load_task(own, section).task.labels == ("x", "y")


def test_a_parquet_file_written_by_datasets_names_its_classes(tmp_path: Path) -> None:
    path = str(tmp_path / "train.parquet")
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-X"]))
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags}
    )
    data = {"tokens": [["a", "b"]], "ner_tags": [[0, 1]]}
    datasets.Dataset.from_dict(data, features=features).to_parquet(path)
    assert load(path).task.labels == ("O", "B-X")
    pq.write_table(pa.Table.from_pydict(data), path)
    assert load(path).task.labels == ("0", "1")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            row("a b", "O"),
            r"do not match .* in 1 row:\n  row 2 \(line 2\): `ner_tags` has 1 labels",
        ),
        ({"tokens": [], "ner_tags": []}, r"row 2 \(line 2\): `tokens` is empty"),
        ({"tokens": "a", "ner_tags": ["O"]}, r"`tokens` is 'a', not a list"),
        ({"ner_tags": ["O"]}, r"`tokens` is missing"),
        ({"tokens": ["a", ""], "ner_tags": ["O", "O"]}, r"`tokens` word 2 is empty"),
        ({"tokens": ["a", 7], "ner_tags": ["O", "O"]}, r"`tokens` word 2 is 7, not a text"),
        ({"tokens": ["\ud800"], "ner_tags": ["O"]}, r"`tokens` word 1 contains half a character"),
        ({"tokens": ["a"], "ner_tags": "O"}, r"no list of labels .*\n.*`ner_tags` is 'O'"),
        ({"tokens": ["a"]}, r"no list of labels .*\n.*`ner_tags` is None"),
        ({"tokens": ["a", "b"], "ner_tags": ["O", None]}, r"`ner_tags` word 2 is None"),
        ({"tokens": ["a", "b"], "ner_tags": ["O", 1.5]}, r"`ner_tags` word 2 is 1\.5"),
    ],
)
def test_rows_that_do_not_fit(jsonl: Write, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(jsonl([ROWS[0], bad]))


def test_other_labels_beside_tags_of_entities_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    path.write_text("# id 1\nthe O\nrome B-LOC\n\n# one\ncat O\n\nb O\nc two\nd three\n")
    with pytest.raises(DataError) as error:
        load(str(path))
    assert error.value.message.splitlines() == [
        f"{path}: another label beside tags of entities (B-LOC) in 2 rows:",
        "  row 2 (line 5): `ner_tags` word 1 is 'one'",
        "  row 3 (line 8): `ner_tags` word 2 is 'two'",
    ]
    assert "all others O" in error.value.hint


@pytest.mark.parametrize("labels", [None, list(TAGS)])
def test_training_needs_two_classes(jsonl: Write, labels: list[str] | None) -> None:
    with pytest.raises(DataError, match=r"every label .*is O"):
        load(jsonl([ROWS[1]]), labels)


CONLLU = """\
# text = Du pain
1-2\tDu\t_\t_\t_\t_\t_\t_\t_\t_
1\tDe\tde\tADP\t_\t_\t2\tcase\t_\t_
2\tle\tle\tDET\t_\t_\t3\tdet\t_\t_
2.1\tbon\tbon\tADJ\t_\t_\t_\t_\t_\t_
3\tpain\tpain\tNOUN\t_\t_\t0\troot\t_\tSpaceAfter=No
"""


def test_a_conllu_file_has_words_and_tags(tmp_path: Path) -> None:
    path = tmp_path / "train.conllu"
    path.write_text(CONLLU, "utf-8")
    loaded = load(str(path), label="upos")
    assert loaded.task.labels == ("ADP", "DET", "NOUN")
    assert loaded.validation[""].dataset["words"][:] == [["De", "le", "pain"]]
    with pytest.raises(DataError, match="`xpos` word 1 is None"):
        load(str(path), label="xpos")


def test_lists_in_a_csv_file(tmp_path: Path) -> None:
    with (tmp_path / "train.csv").open("w", newline="") as file:
        cells = [("tokens", "ner_tags"), ("['Ann', 'left']", "['B-PER' 'O']"), ('["I"]', "['O']")]
        csv.writer(file).writerows(cells)
    dataset = load(str(tmp_path / "train.csv")).validation[""].dataset
    assert dataset["words"][:] == [["Ann", "left"], ["I"]]
    assert dataset["labels"][:] == [[0, 1], [1]]


@pytest.mark.parametrize(
    "tags", ["B_PER I_PER O", "B.PER I.PER O", "b-PER i-PER o", "B-PER B_PER O"]
)
def test_tags_in_another_form_are_an_error(jsonl: Write, tags: str) -> None:
    with pytest.raises(DataError, match=r"looks like the tag of an entity, .* written B-PER"):
        load(jsonl([row("a b c", tags)]))


@pytest.mark.parametrize("tags", ["B_x C_x O", "NOUN VERB O", "i_y A B", "A B O"])
def test_labels_that_are_no_tags_of_entities(jsonl: Write, tags: str) -> None:
    assert load(jsonl([row("a b c", tags)])).main_metric == "accuracy"


def test_all_kinds_of_problems_are_reported_at_once(jsonl: Write) -> None:
    bad = [row("a b", "O"), row("a", "X"), {"tokens": "a", "ner_tags": ["O"]}]
    with pytest.raises(DataError) as error:
        load(jsonl([ROWS[0], *bad]), list(TAGS))
    for text in ("has 1 labels for 2 words", "word 1 is 'X'", "`tokens` is 'a', not a list"):
        assert text in error.value.message
