from collections.abc import Callable

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from dcft_cli.errors import DataError
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.tasks import LoadedTask, load_task

Write = Callable[..., str]


def load(path: str, **task: str) -> LoadedTask:
    data = DataSection(train=path, validation=path, text=["text"])
    return load_task(TaskSection(type="regression", **task), data)


def rows(*labels: object) -> list[dict[str, object]]:
    return [{"text": "x" * (9 - number), "label": label} for number, label in enumerate(labels)]


def test_labels_are_numbers_however_written(jsonl: Write) -> None:
    loaded = load(jsonl(rows(1, 2.5, "-3", " 4e-1 ")))
    assert loaded.train is not None
    assert loaded.train.dataset["label"][:] == pytest.approx([1, 2.5, -3, 0.4])


@pytest.mark.parametrize(
    "label", [None, "", "high", "1,5", True, float("nan"), float("inf"), "nan", "-inf", [1]]
)
def test_labels_that_are_no_numbers(jsonl: Write, label: object) -> None:
    with pytest.raises(DataError, match=r"not a .* number in 1 row:\n  row 2 \(line 2\): `label`"):
        load(jsonl(rows(1, label)))


def test_one_number_teaches_nothing(jsonl: Write) -> None:
    with pytest.raises(DataError, match=r"every row has the same label, 1\.5"):
        load(jsonl(rows(1.5, 1.5)))


def test_the_task_describes_its_model(jsonl: Write) -> None:
    loaded = load(jsonl(rows(1, 2)))
    assert loaded.task.kind == "regression"
    assert loaded.task.auto_class == "AutoModelForSequenceClassification"
    assert loaded.task.model_settings == {"num_labels": 1, "problem_type": "regression"}
    assert loaded.task.labels == ()


def test_scores(jsonl: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    loaded = load(jsonl(rows(1, 2, 9)))
    evaluation = loaded.task.evaluation_set("", loaded.validation[""].dataset, tokenizer)
    labels = np.array(evaluation.features["labels"][:])
    assert labels.tolist() == [1, 2, 9]
    predictions = np.array([[1.0], [2.0], [3.0]])  # as a model with one output gives them
    assert evaluation.score(predictions, labels) == {
        "pearson": pytest.approx(8 / 76**0.5),
        "spearman": pytest.approx(1.0),
        "mse": 12.0,
    }


def test_stsb_reports_its_two_correlations(
    jsonl: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    pairs = [{"sentence1": "a", "sentence2": "b", "label": label} for label in (0.0, 5.0)]
    loaded = load_task(TaskSection(name="stsb"), DataSection(train=jsonl(pairs)))
    assert loaded.train is not None
    evaluation = loaded.task.evaluation_set("", loaded.train.dataset, tokenizer)
    scores = evaluation.score(np.array([[1.0], [1.0]]), np.array([0.0, 5.0]))
    assert scores == {"pearson": 0.0, "spearman": 0.0}


def test_the_lower_error_is_the_better_one(jsonl: Write) -> None:
    path = jsonl(rows(1, 2))
    assert load(path).main_metric == "pearson"
    assert load(path).greater_is_better
    assert load(path, metric="mse").main_metric == "mse"
    assert not load(path, metric="mse").greater_is_better
