import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from transformers import PreTrainedTokenizerFast

from dcft_cli.errors import DataError, RecipeError, TrainingError
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.tasks import LoadedTask, build_task, load_task
from dcft_cli.tasks.multi_label import MultiLabel, best_threshold
from tests.tasks.conftest import Write, load_own, rows

load = partial(load_own, "multi_label", text="text")


def score(logits: Any, present: Any) -> dict[str, float]:
    labels = list("abc"[: len(present[0])])
    task = build_task(TaskSection(type="multi_label", labels=labels), DataSection(text=["text"]))
    assert isinstance(task, MultiLabel)
    return task.score(np.array(logits), np.array(present, np.float32))


def vectors(loaded: LoadedTask) -> list[list[float]]:
    return loaded.validation[""].dataset["label"][:]


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([["b"], ["a", "b"], []], ("a", "b"), [[0, 1], [1, 1], [0, 0]]),
        ([[10], [9, 10], []], ("9", "10"), [[0, 1], [1, 1], [0, 0]]),
        (["b", " a | b", "", "  "], ("a", "b"), [[0, 1], [1, 1], [0, 0], [0, 0]]),
        ([[True], [False], [1.0]], ("1", "false", "true"), [[0, 0, 1], [0, 1, 0], [1, 0, 0]]),
    ],
)
def test_labels_are_found_in_the_training_data(
    jsonl: Write, labels: list[object], names: tuple[str, ...], expected: list[list[float]]
) -> None:
    loaded = load(jsonl(rows(*labels)))
    assert loaded.task.labels == names
    assert vectors(loaded) == expected
    assert loaded.train is not None
    counts = loaded.task.label_counts(loaded.train.dataset)
    assert counts == {number: sum(row[number] for row in expected) for number in range(len(names))}


def test_a_text_is_split_at_the_separator(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,label\nx,a; b c\ny,\nz,d\n")
    loaded = load(str(path), separator=";")
    assert loaded.task.labels == ("a", "b c", "d")
    assert vectors(loaded) == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_another_separator_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("text\tlabel\nx\ta,b\ny\ta\nz\tb,c\n")
    with pytest.raises(DataError, match=r"no row .* separator '\|', but 2 of 3 contain ','") as err:
        load(str(path))
    assert 'data.separator=","' in err.value.hint
    loaded = load(str(path), ["a", "b,c", "a,b", "b"])
    assert vectors(loaded)[2] == [0, 1, 0, 0]


def test_columns_of_0_and_1(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,toxic,rude\nx,1,0\ny,0,0\nz,True,1\n")
    loaded = load(str(path), label=["toxic", "rude"])
    assert loaded.task.labels == ("toxic", "rude")
    assert vectors(loaded) == [[1, 0], [0, 0], [1, 1]]
    section = DataSection(validation=str(path), text=["text"], label=["rude", "toxic"])
    again = load_task(TaskSection(type="multi_label"), section, loaded.task.labels, training=False)
    assert vectors(again) == vectors(loaded), "the order is that of the labels"
    with pytest.raises(DataError, match="has no column `vile`"):
        load(str(path), label=["toxic", "vile"])
    with pytest.raises(RecipeError, match=r"\(a, b\) are not the columns .* \(toxic, rude\)"):
        load(str(path), ["a", "b"], label=["toxic", "rude"])
    with pytest.raises(RecipeError, match="named twice"):
        load(str(path), label=["toxic", "toxic"])


@pytest.mark.parametrize("value", ["2", "", "yes", "0.5"])
def test_a_column_must_hold_0_or_1(tmp_path: Path, value: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f"text,a,b\nx,1,0\ny,0,{value}\n")
    with pytest.raises(DataError, match=rf"in 1 row:\n  row 2 \(line 3\): `b` is '{value}'"):
        load(str(path), label=["a", "b"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "`label` is missing"),
        (3, "`label` is 3, not a list"),
        ({"a": 1}, "`label` is {'a': 1}, not a list"),
        ([None], "`label` contains None"),
        ([["a"]], r"`label` contains \['a'\]"),
        ([0, 1, 0], "`label` contains 0 twice"),
        ("a|a", "`label` contains 'a' twice"),
        ("a||b", "`label` contains ''"),
    ],
)
def test_rows_that_do_not_fit(jsonl: Write, value: object, message: str) -> None:
    with pytest.raises(DataError, match=rf"in 1 row:\n  row 3 \(line 3\): {message}"):
        load(jsonl(rows(["a"], ["b"], value)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (([], []), "no row has a label"),
        ((["a"], []), "every label in `label` is a"),
        ((["a", "b"], ["b", "a"]), "every row has the same labels"),
    ],
)
def test_training_needs_rows_that_differ(jsonl: Write, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(jsonl(rows(*labels)))


def test_the_threshold_decides(jsonl: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    path = jsonl(rows(["a"], ["a", "b"], []))
    logits = np.array([[2.0, -1.0], [0.0, -0.5], [-3.0, -3.0]])

    def score(threshold: float, logits: Any = logits) -> dict[str, float]:
        loaded = load(path, task={"threshold": threshold})
        assert loaded.main_metric == "micro_f1"
        eval_set = loaded.task.evaluation_set("", loaded.validation[""].dataset, tokenizer)
        return eval_set.score(logits, np.array(eval_set.features["labels"][:]))

    assert score(0.5)["micro_f1"] == pytest.approx(4 / 5)
    assert score(0.35)["micro_f1"] == 1.0  # sigmoid(-0.5) is 0.378, sigmoid(-1) is 0.269
    assert score(0.9)["micro_f1"] == 0.0
    assert score(0.9)["best_micro_f1_threshold"] == pytest.approx(1 / (1 + np.exp(0.75)))
    with pytest.raises(TrainingError, match="not finite"):
        score(0.5, np.full((3, 2), np.nan))


def test_scores_by_hand() -> None:
    present = [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    scores = score([[3.0, -0.2, -1.0], [2.0, -0.5, 1.0], [-2.0, -2.0, -3.0]], present)
    assert scores == pytest.approx(
        {
            "micro_f1": 2 * 2 / (3 + 3),
            "macro_f1": (1 + 0 + 0) / 3,
            "mean_average_precision": (1 + 1 / 2) / 2,
            "subset_accuracy": 2 / 3,
            "best_micro_f1": 2 * 2 / (2 + 3),  # those of logits 3 and 2
            "best_micro_f1_threshold": 1 / (1 + np.exp(-1.5)),  # halfway between 2 and 1
        }
    )
    assert all(type(score) is float for score in scores.values())


@pytest.mark.parametrize("seed", range(3))
def test_the_best_threshold_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    present = rng.random(200) < 0.3
    logits = np.round(rng.normal(size=200) + present, 1)  # rounded: ties

    def score(threshold: float) -> float:
        return float(sklearn_metrics.f1_score(present, 1 / (1 + np.exp(-logits)) >= threshold))

    best, threshold = best_threshold(logits, present)
    assert best == pytest.approx(score(threshold - 0.01)) == pytest.approx(score(threshold + 0.01))
    assert best == pytest.approx(max(score(value) for value in np.linspace(0, 1, 100)))


def test_a_threshold_between_very_large_logits_can_be_reached() -> None:
    _, threshold = best_threshold(np.array([50.0, 45.0, 40.0]), np.array([True, True, False]))
    assert 1 / (1 + np.exp(-40.0)) >= threshold < 1


def test_labels_that_never_occur_are_left_out_of_means() -> None:
    scores = score([[1.0, -1.0], [-1.0, -1.0]], [[1, 0], [0, 0]])
    assert scores.pop("best_micro_f1_threshold") == 0.5  # halfway between 1 and -1
    assert scores == dict.fromkeys(scores, 1.0)


def test_scores_without_any_label_are_0() -> None:
    scores = score([[-1.0, -1.0]] * 3, [[0, 0]] * 3)
    assert scores.pop("subset_accuracy") == 1.0
    assert scores.pop("best_micro_f1_threshold") == pytest.approx(1 / (1 + np.exp(1.5)))
    assert scores == dict.fromkeys(scores, 0.0)


@pytest.mark.parametrize("separator", ["|", ","])
@pytest.mark.parametrize("pair", ["['a', 'b']", '["a", "b"]', "['a' 'b']", "[np.str_('a'), 'b']"])
def test_lists_that_are_written_as_texts(tmp_path: Path, pair: str, separator: str) -> None:
    with (tmp_path / "train.csv").open("w", newline="") as file:
        cells = [("text", "label"), ("x", "['a']"), ("y", "b"), ("z", pair), ("w", "[]")]
        csv.writer(file).writerows(cells)
    loaded = load(str(tmp_path / "train.csv"), separator=separator)
    assert loaded.task.labels == ("a", "b")
    assert vectors(loaded) == [[1, 0], [0, 1], [1, 1], [0, 0]]


def test_a_list_without_quotation_marks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('text,label\nx,"[a, b]"\ny,[a]\nz,c\n')
    for separator in "|,":
        with pytest.raises(DataError, match=r"row 1 \(line 2\): `label` is '\[a, b\]', not a list"):
            load(str(tmp_path / "train.csv"), separator=separator)


@pytest.mark.parametrize("labels", [None, ["a", "b", "c"]])
@pytest.mark.parametrize("values", [[[1, 0, 0], [0, 1, 1]], ["[1 0 0]", "[0 1 1]"]])
def test_lists_of_0_and_1(jsonl: Write, labels: list[str] | None, values: list[object]) -> None:
    with pytest.raises(DataError, match="every list in `label` has 3 values of 0 and 1") as error:
        load(jsonl(rows(*values)), labels)
    assert 'data.label="[NAME, NAME]"' in error.value.hint
