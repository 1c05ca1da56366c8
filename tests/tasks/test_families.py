"""What a family says of itself, by which everything else treats it."""

from typing import Any, get_args

import numpy as np
import pytest

from dcft_cli.errors import RecipeError
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.recipe.schema import TaskType
from dcft_cli.tasks import FAMILIES, build_task, labels_only_in_data
from dcft_cli.tasks.text import TextTask

TEXT = {"text": ["text"]}
TWO_CLASSES = {
    "num_labels": 2,
    "id2label": {0: "O", 1: "B-X"},
    "label2id": {"O": 0, "B-X": 1},
}
SINGLE_LABEL = {"problem_type": "single_label_classification"}
MULTI_LABEL = {"problem_type": "multi_label_classification"}


def test_every_type_in_a_recipe_has_a_family() -> None:
    assert set(FAMILIES) == set(get_args(TaskType))
    assert all(family.kind == kind for kind, family in FAMILIES.items())


@pytest.mark.parametrize(
    ("task", "data", "model", "settings", "metrics"),
    [
        (
            {"type": "classification", "labels": ["O", "B-X"]},
            TEXT,
            "SequenceClassification",
            TWO_CLASSES | SINGLE_LABEL,
            "accuracy f1",
        ),
        (
            {"type": "classification", "labels": ["a", "b", "c"]},
            TEXT,
            "SequenceClassification",
            None,
            "accuracy macro_f1",
        ),
        ({"name": "cola"}, {}, "SequenceClassification", None, "matthews_correlation"),
        (
            {"type": "multi_label", "labels": ["O", "B-X"]},
            TEXT,
            "SequenceClassification",
            TWO_CLASSES | MULTI_LABEL,
            "micro_f1 macro_f1 mean_average_precision subset_accuracy best_micro_f1",
        ),
        (
            {"type": "regression"},
            TEXT,
            "SequenceClassification",
            {"num_labels": 1, "problem_type": "regression"},
            "pearson spearman mse",
        ),
        (
            {"type": "token_classification", "labels": ["O", "B-X"]},
            {},
            "TokenClassification",
            TWO_CLASSES,
            "f1 precision recall accuracy",
        ),
        (
            {"type": "token_classification", "labels": ["NN", "VB"]},
            {},
            "TokenClassification",
            None,
            "accuracy macro_f1",
        ),
        (
            {"type": "question_answering"},
            {},
            "QuestionAnswering",
            {"num_labels": 2},
            "f1 exact_match",
        ),
        (
            {"name": "squad_v2"},
            {},
            "QuestionAnswering",
            {"num_labels": 2},
            "f1 exact_match best_f1 best_exact_match",
        ),
    ],
)
def test_a_task_describes_its_model_and_metrics(
    task: dict[str, Any], data: dict[str, Any], model: str, settings: Any, metrics: str
) -> None:
    built = build_task(TaskSection(**task), DataSection(**data))
    assert built.auto_class == f"AutoModelFor{model}"
    assert built.metrics == tuple(metrics.split())
    assert built.labels == tuple(built.model_settings.get("label2id", ()))
    if settings is not None:
        assert built.model_settings == settings


@pytest.mark.parametrize(
    ("task", "data", "message", "hint"),
    [
        ("classification", {}, "which column holds the text", "data.text=COLUMN"),
        ("question_answering", {"text": ["q"]}, r"1 column \(q\).* takes 2", "question, context"),
        ("token_classification", {"text": ["a", "b"]}, r"2 columns \(a, b\).* takes 1", "tokens"),
        (
            "token_classification",
            {"label": ["a", "b"]},
            r"2 columns \(a, b\).* takes 1",
            "multi_label",
        ),
        (
            "classification",
            TEXT | {"label": ["a", "b"]},
            r"2 columns \(a, b\).* takes 1",
            "multi_label",
        ),
    ],
)
def test_columns_that_a_family_does_not_take(
    task: TaskType, data: dict[str, Any], message: str, hint: str
) -> None:
    section = TaskSection(type=task, labels=["a", "b"])
    with pytest.raises(RecipeError, match=message) as error:
        build_task(section, DataSection(**data))
    assert hint in error.value.hint


def test_class_names_come_from_the_recipe_the_known_task_or_the_data() -> None:
    own, data = TaskSection(type="classification"), DataSection(**TEXT)
    assert labels_only_in_data(own, data)
    with pytest.raises(RecipeError, match="class names are not known"):
        build_task(own, data)
    with pytest.raises(RecipeError, match="named twice: a, a"):
        build_task(own, data, ["a", "a"])
    assert build_task(own, data, ["a", "b"]).labels == ("a", "b")
    assert not labels_only_in_data(TaskSection(type="regression"), data)
    assert not labels_only_in_data(TaskSection(type="classification", labels=["a", "b"]), data)
    mnli = TaskSection(name="mnli")
    assert not labels_only_in_data(mnli, DataSection())
    assert build_task(mnli, DataSection()).labels == ("entailment", "neutral", "contradiction")
    columns = DataSection(**TEXT, label=["toxic", "rude"])
    assert build_task(TaskSection(type="multi_label"), columns).labels == ("toxic", "rude")


@pytest.mark.parametrize(
    ("task", "logits", "labels", "failure"),
    [
        ("classification", [[1, 0], [2, 0]], [0, 1], "every row is predicted x"),
        ("classification", [[1, 0], [2, 0]], [1, 1], ""),
        ("classification", [[1, 0], [0, 2]], [0, 1], ""),
        ("multi_label", [[1, 1], [2, 1]], [[1, 0], [0, 0]], "every row is predicted x, y"),
        ("multi_label", [[-1, -1], [-1, -2]], [[1, 0], [0, 0]], "every row is predicted no label"),
        ("multi_label", [[1, 1], [2, -1]], [[1, 0], [0, 0]], ""),
        ("regression", [[3], [3]], [1, 5], "every prediction is about 3"),
        ("regression", [[9], [8]], [1, 2], "predictions are about 8.5, and labels 1.5"),
        ("regression", [[1], [2]], [1, 5], ""),
    ],
)
def test_a_prediction_that_ignores_the_text_is_a_failure(
    task: TaskType, logits: list[list[float]], labels: list[Any], failure: str
) -> None:
    section = TaskSection(type=task, labels=["x", "y"])
    built = build_task(section, DataSection(**TEXT))
    assert isinstance(built, TextTask)
    found = built.failure(np.array(logits), np.array(labels))
    assert found.startswith(failure) and bool(found) == bool(failure)
