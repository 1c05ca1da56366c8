from functools import partial

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from dcft_cli.errors import DataError
from tests.tasks.conftest import Write, load_own, rows

load = partial(load_own, "regression", text="text")


def test_labels_are_numbers_however_written(jsonl: Write) -> None:
    loaded = load(jsonl(rows(1, 2.5, "-3", " 4e-1 ")))
    assert loaded.validation[""].dataset["label"][:] == pytest.approx([1, 2.5, -3, 0.4])


@pytest.mark.parametrize(
    "label", ["high", "1,5", "1_5", True, float("nan"), float("inf"), "nan", "-inf", [1]]
)
def test_labels_that_are_not_numbers(jsonl: Write, label: object) -> None:
    with pytest.raises(DataError, match=r"not a .* number in 1 row:\n  row 2 \(line 2\): `label`"):
        load(jsonl(rows(1, label)))


@pytest.mark.parametrize("label", [None, "", " "])
def test_missing_labels(jsonl: Write, label: object) -> None:
    with pytest.raises(DataError, match=r"missing label in 1 row:\n  row 2 \(line 2\)") as error:
        load(jsonl(rows(1, label)))
    assert error.value.hint == "Fix or remove these rows."


def test_training_needs_two_numbers(jsonl: Write) -> None:
    with pytest.raises(DataError, match=r"every label is 1\.5"):
        load(jsonl(rows(1.5, 1.5)))


def test_labels_that_float32_rounds_together(jsonl: Write) -> None:
    with pytest.raises(DataError, match="100000001 to 100000050, differ by too little") as error:
        load(jsonl(rows(100_000_001, 100_000_002, 100_000_050)))
    assert error.value.hint == "Subtract a constant from all labels."
    load(jsonl(rows(1, 2, 203, 0.1 + 0.2, 0.3)))


def test_scores(jsonl: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    loaded = load(jsonl(rows(1, 2, 9)))
    eval_set = loaded.task.evaluation_set("", loaded.validation[""].dataset, tokenizer)
    labels = np.array(eval_set.features["labels"][:])
    assert labels.tolist() == [1, 2, 9]
    predictions = np.array([[1.0], [2.0], [3.0]])  # as a model with one output gives them
    assert eval_set.score(predictions, labels) == {
        "pearson": pytest.approx(8 / 76**0.5),
        "spearman": pytest.approx(1.0),
        "mse": 12.0,
    }
    constant = eval_set.constant_scores(np.array([4.0]))
    assert constant == {"pearson": 0.0, "spearman": 0.0, "mse": pytest.approx(38 / 3)}


@pytest.mark.parametrize(("metric", "higher"), [(None, True), ("mse", False)])
def test_a_lower_error_is_better(jsonl: Write, metric: str | None, higher: bool) -> None:
    loaded = load(jsonl(rows(1, 2)), task={"metric": metric})
    assert loaded.main_metric == (metric or "pearson")
    assert loaded.greater_is_better is higher


@pytest.mark.parametrize("label", [1e39, -1e39, "1e39", 1e10, 10**30])
def test_labels_too_large_to_train_on(jsonl: Write, label: object) -> None:
    with pytest.raises(DataError, match=r"too large for float32 in 1 row:\n  row 2 \(line 2\)"):
        load(jsonl(rows(1, label)))
