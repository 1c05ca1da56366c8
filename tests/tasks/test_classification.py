import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from dcft_cli.errors import DataError, RecipeError
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.tasks import LoadedTask, load_task
from tests.tasks.conftest import Write, load_own, rows

load = partial(load_own, "classification", text="text")


def numbers(loaded: LoadedTask) -> list[int]:
    return loaded.validation[""].dataset["label"][:]


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        (["pos", "neg", "pos"], ("neg", "pos"), [1, 0, 1]),
        ([0, 1, 1], ("0", "1"), [0, 1, 1]),
        ([10, 9, 1], ("1", "9", "10"), [2, 1, 0]),
        ([-1, 0, 1], ("-1", "0", "1"), [0, 1, 2]),
        (["10", "9", "1"], ("1", "9", "10"), [2, 1, 0]),
        (["1", "01", "2", "001"], ("001", "01", "1", "2"), [2, 1, 3, 0]),
        ([1.0, 0.0], ("0", "1"), [1, 0]),
        ([True, False], ("false", "true"), [1, 0]),
        ([" b", "a "], ("a", "b"), [1, 0]),
    ],
)
def test_labels_are_found_in_the_training_data(
    jsonl: Write, values: list[object], names: tuple[str, ...], expected: list[int]
) -> None:
    loaded = load(jsonl(rows(*values)))
    assert loaded.task.labels == names
    assert numbers(loaded) == expected


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (range(30), "`label` has a different value in every row: is it the label?"),
        (
            [*range(21), *["a"] * 19],
            "`label` has 22 different values, 21 of them in one row each of 40: is it the label?",
        ),
    ],
)
def test_a_column_of_identifiers_is_no_label(
    jsonl: Write, values: Sequence[object], problem: str
) -> None:
    path = jsonl(rows(*values))
    for validation in ({}, {"validation": None, "holdout": {"fraction": 0.2}}):
        with pytest.raises(DataError, match=re.escape(f"{path}: {problem}")) as error:
            load(path, **validation)
        assert "data.label (columns: text, label)" in error.value.hint
        assert "task.labels" in error.value.hint
    names = sorted({str(value) for value in values})
    assert len(load(path, names).task.labels) == len(names)


def test_columns_that_repeat_most_values_are_labels(jsonl: Write) -> None:
    for values in (range(9), [*range(20), *["a"] * 20], [*range(20), *range(20)]):
        assert load(jsonl(rows(*values))).task.labels


def test_labels_of_the_recipe_may_be_written_as_names_or_numbers(jsonl: Write) -> None:
    loaded = load(jsonl(rows("pos", 1, "1", 1.0, "neg")), ["neg", "pos", "none"])
    assert loaded.task.labels == ("neg", "pos", "none")
    assert numbers(loaded) == [1, 1, 1, 1, 0]


def test_if_names_are_numbers_a_number_is_a_name(jsonl: Write) -> None:
    names = ["1", "2", "3"]
    assert numbers(load(jsonl(rows(1, 3)), names)) == [0, 2]
    with pytest.raises(
        DataError, match=r"unknown label in 1 row:\n  row 3 \(line 3\): `label` is 0"
    ):
        load(jsonl(rows(1, 3, 0)), names)


def test_an_unknown_label_names_file_row_value_and_the_known_ones(jsonl: Write) -> None:
    train, dev = jsonl(rows("a", "b"), "train.jsonl"), jsonl(rows("a", "c"), "dev.jsonl")
    with pytest.raises(DataError) as error:
        load(train, validation=dev)
    expected = f"{dev}: unknown label in 1 row:\n  row 2 (line 2): `label` is 'c'"
    assert error.value.message == expected
    assert error.value.hint == "Known labels: a, b."


def test_many_problems_are_counted(jsonl: Write) -> None:
    with pytest.raises(DataError) as error:
        load(jsonl(rows("a", *range(5, 12))), ["a", "b"])
    lines = error.value.message.splitlines()
    assert lines[0].endswith("unknown label in 7 rows:")
    assert lines[1].strip() == "row 2 (line 2): `label` is 5"
    assert len(lines) == 7
    assert lines[-1].strip() == "and 2 more"


def test_hidden_test_labels_have_a_hint(jsonl: Write) -> None:
    pairs = [{"sentence1": "a", "sentence2": "b", "label": -1}]
    with pytest.raises(DataError) as error:
        load_task(TaskSection(name="rte"), DataSection(validation=jsonl(pairs)), training=False)
    assert "Known labels: entailment (0), not_entailment (1)." in error.value.hint
    assert "hidden labels of GLUE" in error.value.hint


def test_a_known_task_takes_names_and_numbers(jsonl: Write) -> None:
    labels = ["entailment", 1, "1", "not_entailment"]
    pairs = [{"sentence1": "a", "sentence2": "b", "label": label} for label in labels]
    loaded = load_task(TaskSection(name="rte"), DataSection(train=jsonl(pairs)))
    assert loaded.train is not None
    assert loaded.train.dataset[:] == {
        "text": ["a"] * 4,
        "text_pair": ["b"] * 4,
        "label": [0, 1, 1, 1],
    }


@pytest.mark.parametrize("label", [None, "", "  "])
def test_a_missing_label(jsonl: Write, label: object) -> None:
    with pytest.raises(DataError, match=r"missing label in 1 row:\n  row 3 \(line 3\)") as error:
        load(jsonl(rows("a", "b", label)))
    assert error.value.hint == "Fix or remove these rows."


@pytest.mark.parametrize("label", [0.5, float("nan"), [1], {"a": 1}])
def test_values_that_are_not_a_class(jsonl: Write, label: object) -> None:
    with pytest.raises(DataError, match=r"no usable label in 1 row:\n  row 3 \(line 3\)"):
        load(jsonl(rows("a", "b", label)))


@pytest.mark.parametrize("labels", [None, ["a", "b"]])
def test_training_needs_two_classes(jsonl: Write, labels: list[str] | None) -> None:
    with pytest.raises(DataError, match=r"every label .*is a") as error:
        load(jsonl(rows("a", "a")), labels)
    assert error.value.hint == "At least two classes are needed."


@pytest.mark.parametrize("text", [None, "", "  ", 7, float("nan"), ["a"], "half \ud800"])
def test_values_that_are_not_a_text(jsonl: Write, text: object) -> None:
    path = jsonl([*rows("a", "b"), {"text": text, "label": "a"}])
    with pytest.raises(DataError, match=r"no usable text in 1 row:\n  row 3 \(line 3\): `text` "):
        load(path)


def test_a_missing_column_lists_the_existing_ones(jsonl: Write) -> None:
    path = jsonl(rows("a", "b"))
    with pytest.raises(DataError) as error:
        load(path, label="lable")
    assert error.value.message == f"{path} has no column `lable`. It has: text, label."
    assert "Did you mean label?" in error.value.hint
    assert "data.label" in error.value.hint
    with pytest.raises(DataError, match="no column `sentence`"):
        load(path, text=["sentence"])


def test_features_are_the_inputs_of_the_model(
    jsonl: Write, any_tokenizer: PreTrainedTokenizerFast
) -> None:
    pairs = [
        {"text": "ab " * length, "other": "xyz", "label": length % 2} for length in (1, 30, 2, 1)
    ]
    loaded = load(jsonl(pairs), text=["text", "other"], max_length=16)
    assert loaded.train is not None
    training = loaded.task.encode_training(loaded.train.dataset, any_tokenizer)
    columns = {*any_tokenizer.model_input_names, "labels", "length"}
    assert set(training.column_names) == columns
    assert training["labels"][:] == [1, 0, 0, 1]
    assert training["length"][:] == [len(ids) for ids in training["input_ids"]]
    assert max(training["length"]) == 16
    single, pair = training[0]["input_ids"], any_tokenizer("ab ", "xyz")["input_ids"]
    assert single == pair

    features = loaded.task.evaluation_set("", loaded.train.dataset, any_tokenizer).features
    assert set(features.column_names) == columns
    assert features["length"][:] == sorted(training["length"], reverse=True)
    assert features["labels"][:] == [0, 0, 1, 1], "rows of one length keep their order"


@pytest.mark.parametrize(
    ("labels", "logits", "expected"),
    [
        (["a", "b"], [[2, 1], [0, 3], [0, 1]], {"accuracy": 2 / 3, "f1": 2 / 3}),
        (
            ["a", "b", "c"],
            [[2, 1, 0], [0, 3, 0], [0, 1, 0]],
            {"accuracy": 2 / 3, "macro_f1": (2 / 3 + 2 / 3) / 2},
        ),
    ],
)
def test_scores(
    jsonl: Write,
    tokenizer: PreTrainedTokenizerFast,
    labels: list[str],
    logits: list[list[float]],
    expected: dict[str, float],
) -> None:
    loaded = load(jsonl(rows("a", "b", "a")), labels)
    eval_set = loaded.task.evaluation_set("", loaded.validation[""].dataset, tokenizer)
    scores = eval_set.score(np.array(logits), np.array(eval_set.features["labels"][:]))
    assert scores == pytest.approx(expected)
    assert all(type(score) is float for score in scores.values())
    assert loaded.main_metric == "accuracy"


def test_numbers_are_not_positions_among_classes_that_were_found(tmp_path: Path) -> None:
    train, dev = tmp_path / "train.csv", tmp_path / "dev.csv"
    train.write_text("text,label\na,1.0\nb,2.0\nc,3.0\n")
    dev.write_text("text,label\na,1\nb,2\n")
    with pytest.raises(DataError, match="unknown label in 2 rows") as error:
        load(str(train), validation=str(dev))
    dev.with_suffix(".jsonl").write_text('{"text": "a", "label": 2.0}\n')
    assert numbers(load(str(train), validation=str(dev.with_suffix(".jsonl")))) == [1]
    assert error.value.hint == (
        "Known labels: 1.0, 2.0, 3.0. A number is a name, as it is written: 1 is not 1.0."
    )


def test_named_rows_and_numbered_rows_need_an_order(jsonl: Write) -> None:
    train, dev = jsonl(rows("pos", "neg"), "train.jsonl"), jsonl(rows(0, 1, "1"), "dev.jsonl")
    with pytest.raises(DataError, match="unknown label in 3 rows") as error:
        load(train, validation=dev)
    assert "name the classes in order with task.labels" in error.value.hint
    assert numbers(load(train, ["pos", "neg"], validation=dev)) == [0, 1, 1]


def test_the_recipe_may_declare_the_order_for_a_trained_adapter(jsonl: Write) -> None:
    """The model's outputs keep their order; numbers in the data mean that of the recipe."""
    adapter = ["contradiction", "entailment", "neutral"]
    data = DataSection(validation=jsonl(rows(0, 1, 2, "neutral")), text=["text"])
    task = TaskSection(type="classification")
    with pytest.raises(DataError, match="unknown label in 3 rows"):
        load_task(task, data, adapter, training=False)
    order = ["entailment", "neutral", "contradiction"]
    declared = TaskSection(type="classification", labels=order)
    loaded = load_task(declared, data, adapter, training=False)
    assert loaded.task.labels == tuple(adapter)
    assert numbers(loaded) == [1, 2, 0, 2]
    other = TaskSection(type="classification", labels=["yes", "maybe", "no"])
    with pytest.raises(RecipeError, match=r"\(yes, maybe, no\) are not those of the adapter"):
        load_task(other, data, adapter, training=False)


def test_the_order_of_a_data_set_that_names_its_classes(tmp_path: Path, jsonl: Write) -> None:
    path = str(tmp_path / "train.parquet")
    names = datasets.ClassLabel(names=["pos", "neg"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    columns = {"text": ["a", "b", "c"], "label": [0, 1, 1]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    loaded = load(path, validation=jsonl(rows(1, "pos")))
    assert loaded.task.labels == ("pos", "neg")
    assert numbers(loaded) == [1, 0], "the other file means the same order"
    assert numbers(load(path, ["neg", "pos"])) == [1, 0, 0], "its numbers are its own"
    assert numbers(load(path, ["yes", "no"])) == [0, 1, 1], "or get other names"
    for labels in (["neg", "good"], ["yes", "no", "maybe"]):
        with pytest.raises(DataError, match="unknown label"):
            load(path, labels)


def test_booleans_are_the_same_in_json_and_csv(tmp_path: Path, jsonl: Write) -> None:
    train = tmp_path / "train.csv"
    train.write_text("text,label\na,True\nb,False\n")
    loaded = load(str(train), validation=jsonl(rows(True, "true", "False", "TRUE")))
    assert loaded.task.labels == ("False", "True")
    assert numbers(loaded) == [1, 1, 0, 1]
    assert load(jsonl(rows(True, "True", False))).task.labels == ("True", "false")
    with pytest.raises(RecipeError, match="named twice"):
        load(str(train), ["True", "true"])


def test_names_in_two_unicode_forms_are_one_name(jsonl: Write) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    mixed = [
        {decomposed: "a", "label": decomposed},
        {decomposed: "b", "label": composed},
        {decomposed: "c", "label": "bar"},
    ]
    loaded = load(jsonl(mixed), text=composed)
    assert loaded.task.labels == ("bar", composed)
    assert numbers(loaded) == [1, 1, 0]
    assert numbers(load(jsonl(mixed), ["bar", decomposed], text=decomposed)) == [1, 1, 0]


def test_a_list_of_labels_is_no_class(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,label\na,\"['x', 'y']\"\nb,['x']\nc,[x]\n")
    with pytest.raises(DataError, match="a list of labels, written as a text, in 2 rows") as error:
        load(str(path))
    assert "task.type=multi_label" in error.value.hint


def test_names_of_very_many_digits(jsonl: Write) -> None:
    assert load(jsonl(rows("9" * 5000, "1"))).task.labels == ("1", "9" * 5000)


def test_all_kinds_of_problems_are_reported_at_once(tmp_path: Path) -> None:
    train = tmp_path / "train.csv"
    train.write_text("text,label\na,x\n,y\nb,\nc,z\nd,x,1\n,\ne,y\n")
    with pytest.raises(DataError) as error:
        load(str(train), ["x", "y"])
    assert error.value.message.splitlines() == [
        f"{train}: wrong number of fields in 1 row:",
        "  row 5 (line 6): 3 instead of 2",
        f"{train}: no usable text in 1 row:",
        "  row 2 (line 3): `text` is empty",
        f"{train}: missing label in 1 row:",
        "  row 3 (line 4): `label` is ''",
        f"{train}: unknown label in 1 row:",
        "  row 4 (line 5): `label` is 'z'",
    ]
