from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from dcft_cli.data import reading
from dcft_cli.errors import DataError, RecipeError
from dcft_cli.recipe import DataSection, HoldoutSection, TaskSection
from dcft_cli.recipe.schema import TaskType
from dcft_cli.tasks import load_task
from tests.tasks.conftest import Write


def pairs(*labels: object) -> list[dict[str, object]]:
    return [
        {"sentence1": f"first {number}", "sentence2": "second", "label": label}
        for number, label in enumerate(labels)
    ]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Splits requested from a Hub whose every split has two rows of MNLI and RTE."""
    requested: list[str] = []

    def load_dataset(*_: str | None, split: str, revision: str | None) -> Dataset:
        requested.append(split)
        columns = ("premise", "hypothesis", "sentence1", "sentence2")
        return Dataset.from_dict({name: ["a", ""] for name in columns} | {"label": [0, 1]})

    monkeypatch.setattr(reading.datasets, "load_dataset", load_dataset)
    return requested


def test_a_known_task_has_its_splits(hub: list[str]) -> None:
    data = DataSection(hub="nyu-mll/glue", config="mnli")
    loaded = load_task(TaskSection(name="mnli"), data)
    assert hub == ["train", "validation_matched", "validation_mismatched"]
    assert list(loaded.validation) == ["matched", "mismatched"]
    origin = "nyu-mll/glue (mnli), split validation_matched"
    assert loaded.validation["matched"].source == origin
    assert loaded.main_metric == "matched_accuracy"


def test_splits_of_the_recipe_come_first(hub: list[str]) -> None:
    splits = {"train": "train[:1%]", "validation": {"mismatched": "validation_mismatched"}}
    loaded = load_task(TaskSection(name="mnli"), DataSection(hub="nyu-mll/glue", **splits))
    assert hub == ["train[:1%]", "validation_mismatched"]
    assert loaded.main_metric == "mismatched_accuracy"


def test_files_come_before_the_hub(hub: list[str], jsonl: Write) -> None:
    train, dev = jsonl(pairs(0, 1, 1), "train.jsonl"), jsonl(pairs(0), "dev.jsonl")
    data = DataSection(hub="nyu-mll/glue", config="rte", train=train, validation=dev)
    loaded = load_task(TaskSection(name="rte"), data)
    assert hub == []
    assert loaded.train is not None
    assert (loaded.train.source, len(loaded.train.dataset)) == (train, 3)
    assert (loaded.validation[""].source, len(loaded.validation[""].dataset)) == (dev, 1)
    assert loaded.main_metric == "accuracy"


def test_an_evaluation_reads_no_training_data(jsonl: Write) -> None:
    data = DataSection(
        train="gone.jsonl", validation=jsonl(pairs("b", "c")), text=["sentence1", "sentence2"]
    )
    task = TaskSection(type="classification")
    loaded = load_task(task, data, ["a", "b", "c"], training=False)
    assert loaded.train is None
    assert loaded.task.labels == ("a", "b", "c")
    assert loaded.validation[""].dataset["label"][:] == [1, 2]
    with pytest.raises(DataError, match=r"gone\.jsonl does not exist"):
        load_task(task, data)
    with pytest.raises(RecipeError, match="class names are not known"):
        load_task(task, data, training=False)


def test_an_evaluation_holds_out_the_same_rows(jsonl: Write) -> None:
    data = DataSection(
        train=jsonl(pairs(*[0, 1] * 30)), holdout=HoldoutSection(fraction=0.3), text=["sentence1"]
    )
    task = TaskSection(type="classification")
    trained = load_task(task, data)
    evaluated = load_task(task, data, trained.task.labels, training=False)
    assert trained.train is not None
    assert evaluated.train is None
    held_out = evaluated.validation[""].dataset
    assert held_out[:] == trained.validation[""].dataset[:]
    assert len(held_out) + len(trained.train.dataset) == 60


def test_training_works_without_validation_data(jsonl: Write) -> None:
    loaded = load_task(TaskSection(name="rte"), DataSection(train=jsonl(pairs(0, 1))))
    assert loaded.validation == {}
    assert loaded.main_metric == "accuracy"


def test_missing_data_sections(jsonl: Write) -> None:
    task = TaskSection(name="rte")
    with pytest.raises(DataError, match="no training data") as error:
        load_task(task, DataSection())
    assert "data.train=" in error.value.hint
    with pytest.raises(DataError, match="no validation data") as error:
        load_task(task, DataSection(train=jsonl(pairs(0, 1))), training=False)
    assert "data.validation=" in error.value.hint


@pytest.mark.parametrize(
    ("sets", "wanted", "metric"),
    [
        ([""], None, "accuracy"),
        ([""], "f1", "f1"),
        (["easy", "hard"], None, "easy_accuracy"),
        (["easy", "hard"], "f1", "easy_f1"),
        (["easy", "hard"], "hard_f1", "hard_f1"),
    ],
)
def test_the_main_metric(jsonl: Write, sets: list[str], wanted: str | None, metric: str) -> None:
    path = jsonl([{"sentence1": "a", "sentence2": "b", "label": label} for label in (0, 1)])
    validation: Any = path if sets == [""] else dict.fromkeys(sets, path)
    task = TaskSection(name="mrpc", metric=wanted)
    assert load_task(task, DataSection(train=path, validation=validation)).main_metric == metric


def test_an_unknown_metric(jsonl: Write) -> None:
    data = DataSection(validation={"easy": jsonl(pairs(0))})
    with pytest.raises(RecipeError, match="no score named bleu") as error:
        load_task(TaskSection(name="mrpc", metric="bleu"), data, training=False)
    assert error.value.hint == "It has: easy_accuracy, easy_f1."


def test_nothing_is_printed_or_cached(
    jsonl: Write, tokenizer: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = load_task(TaskSection(name="rte"), DataSection(train=jsonl(pairs(*[0, 1] * 2000))))
    assert loaded.train is not None
    training = loaded.task.encode_training(loaded.train.dataset, tokenizer)
    assert training.cache_files == []
    with pytest.raises(DataError):
        reading.read_hub(DataSection(hub="nyu-mll/glue"), "train", [])
    assert capfd.readouterr() == ("", "")


def test_questions_on_one_context_stay_together(jsonl: Write) -> None:
    answers = {"text": ["context"], "answer_start": [0]}
    rows = [
        {"question": f"{number}?", "context": f"context {number // 5}", "answers": answers}
        for number in range(100)
    ]
    data = DataSection(train=jsonl(rows), holdout=HoldoutSection(fraction=0.3))
    loaded = load_task(TaskSection(name="squad_v1"), data)
    assert loaded.train is not None
    train, validation = loaded.train.dataset, loaded.validation[""].dataset
    assert len(train) + len(validation) == 100
    assert not set(train["context"]) & set(validation["context"])


def test_every_class_is_held_out_in_its_share(jsonl: Write) -> None:
    labels = ["a"] * 200 + ["b"] * 50 + ["c"] * 5 + ["d"]
    path = jsonl(pairs(*labels))
    data = DataSection(train=path, text=["sentence1"], holdout=HoldoutSection(fraction=0.2))
    loaded = load_task(TaskSection(type="classification"), data)
    assert loaded.train is not None and loaded.holds_out
    assert loaded.task.label_counts(loaded.validation[""].dataset) == {0: 40, 1: 10, 2: 1}
    assert loaded.task.label_counts(loaded.train.dataset) == {0: 160, 1: 40, 2: 4, 3: 1}
    assert loaded.train.source == f"{path} (training part)"
    assert loaded.validation[""].source == f"{path} (held-out part)"
    texts = loaded.validation[""].dataset["text"][:]
    assert [record["sentence1"] for record in loaded.validation[""].records] == texts


def test_declared_classes_without_rows_are_noted(jsonl: Write) -> None:
    """Ratings from 1 to 3 would silently be classes 1 to 3 of four, the first of which is 0."""
    path = jsonl(pairs(1, 2, 3, 1))
    data = DataSection(train=path, text=["sentence1"], holdout=HoldoutSection(fraction=0.25))
    labels = ["poor", "fair", "good", "great"]
    (note,) = load_task(TaskSection(type="classification", labels=labels), data).notes
    assert note == (
        f"{path}: no row has the class poor; whole numbers in the data count from 0: 1 means fair"
    )
    path = jsonl(pairs("poor", "great"))
    data = DataSection(train=path, text=["sentence1"])
    (note,) = load_task(TaskSection(type="classification", labels=labels), data).notes
    assert note == f"{path}: no row has the class fair, good"


@pytest.mark.parametrize("kind", ["classification", "multi_label"])
def test_classes_of_held_out_rows_only_are_noted(jsonl: Write, kind: TaskType) -> None:
    rows = [{"text": str(number), "label": "ab"[number % 2]} for number in range(20)]
    rows += [{"text": "4", "label": "c"}]  # beside a
    rows = [row | {"label": [row["label"]]} for row in rows] if kind == "multi_label" else rows
    path = jsonl(rows)
    notes = {}
    for seed in range(10):
        holdout = HoldoutSection(fraction=0.2, seed=seed)
        loaded = load_task(
            TaskSection(type=kind), DataSection(train=path, text=["text"], holdout=holdout)
        )
        assert loaded.train is not None
        counts = loaded.task.label_counts(loaded.train.dataset)
        notes[counts[2]] = loaded.notes
    assert notes == {
        1: [],
        0: [
            f"{path} (training part): no row has the class c; all such rows are held out; add "
            "rows, or set another data.holdout.seed"
        ],
    }


@pytest.mark.parametrize("form", ["{}", " {}\n"])
def test_validation_rows_with_texts_of_training_rows_are_noted(jsonl: Write, form: str) -> None:
    rows = pairs(*[0, 1] * 20)
    train = jsonl(rows)
    again = jsonl([row | {"sentence1": form.format(row["sentence1"])} for row in rows], "dev.jsonl")
    data = DataSection(train=train, validation=again, text=["sentence1", "sentence2"])
    (note,) = load_task(TaskSection(type="classification"), data).notes
    assert note == (
        f"{again}: 40 of 40 rows have the text of a training row, so scores on them say little "
        "about new texts"
    )
    data = data.model_copy(update={"validation": None, "holdout": HoldoutSection(fraction=0.25)})
    assert load_task(TaskSection(type="classification"), data).notes == []


def test_dropped_rows_and_similar_classes_are_noted(tmp_path: Path) -> None:
    train, dev = tmp_path / "train.csv", tmp_path / "dev.csv"
    rows = ["text,label", *["a,billing"] * 12, ",", "b,Billing", "c,biling", "d,refund"]
    train.write_text("\n".join(rows))
    dev.write_text("text,label\n,\nnew,billing\n,\n")
    data = DataSection(train=str(train), validation=str(dev), text=["text"])
    assert load_task(TaskSection(type="classification"), data).notes == [
        f"{train}: 1 blank row dropped",
        f"{train}: classes that may be the same: 'Billing' (1) and 'billing' (12); 'biling' (1) and"
        " 'billing' (12); correct the labels in the file, or, if they differ, list all of them in"
        " task.labels",
        f"{dev}: 2 blank rows dropped",
    ]
    labels = ["Billing", "biling", "billing", "refund"]
    declared = TaskSection(type="classification", labels=labels)
    assert len(load_task(declared, data).notes) == 2
