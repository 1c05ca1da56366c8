"""Class weights: their values, the weighted loss, and the prior that belongs to it."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from scipy.optimize import minimize

from dcft_cli.errors import RecipeError
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.recipe.schema import TaskType
from dcft_cli.tasks import build_task
from dcft_cli.tasks.base import Task

NAMES = ["a", "b", "c"]
CLASSES = Dataset.from_dict({"label": [0] * 6 + [1] * 3 + [2]})
SETS = Dataset.from_dict({"label": [[1.0, 0.0, 0.0]] * 2 + [[1.0, 1.0, 0.0]] * 2})
WORDS = Dataset.from_dict({"labels": [[0, 0, 0, 1], [0, 0, 0], [1, 1], [2]]})
ROWS = {"classification": CLASSES, "multi_label": SETS, "token_classification": WORDS}


def task_of(kind: str, weights: Any = None) -> Task:
    section = TaskSection(type=kind, labels=None if kind == "regression" else NAMES)  # type: ignore[arg-type]
    task = build_task(section, DataSection(text=["tokens"]))
    if weights is not None:
        task.weight_classes(weights, ROWS.get(kind, CLASSES))
    return task


@pytest.mark.parametrize("kind", ["classification", "token_classification"])
def test_balanced_classes_contribute_equally(kind: str) -> None:
    weights = task_of(kind, "balanced").class_weights
    assert weights == pytest.approx([10 / 3 / 6, 10 / 3 / 3, 10 / 3])  # as in scikit-learn


def test_only_ratios_matter() -> None:
    """The mean over the rows is 1, and classes without a weight have 1."""
    weights = task_of("classification", {"b": 2.0, "c": 4.0}).class_weights
    assert weights is not None
    assert weights / weights[0] == pytest.approx([1, 2, 4])
    assert weights @ [6, 3, 1] == pytest.approx(10)


def test_weights_of_labels_are_those_of_the_rows_that_have_them() -> None:
    # Every row has a, and none has c: nothing can balance them.
    assert task_of("multi_label", "balanced").class_weights == pytest.approx([1, 1, 1])
    task = task_of("multi_label")
    task.weight_classes("balanced", Dataset.from_dict({"label": [[1, 0, 0]] * 3 + [[0, 1, 0]]}))
    assert task.class_weights == pytest.approx([1 / 3, 3, 1])
    assert task_of("multi_label", {"b": 5.0}).class_weights == pytest.approx([1, 5, 1])


def test_unknown_classes_and_families_without_classes_are_errors() -> None:
    bools = build_task(
        TaskSection(type="classification", labels=["False", "True"]), DataSection(text=["text"])
    )
    bools.weight_classes({"true": 3.0}, Dataset.from_dict({"label": [0, 1]}))
    assert bools.class_weights == pytest.approx([0.5, 1.5]), "as YAML writes them"
    with pytest.raises(RecipeError, match="no class named bb, x") as error:
        task_of("classification", {"bb": 2.0, "a": 1.0, "x": 3.0})
    assert error.value.hint == "Did you mean b? Classes: a, b, c."
    for kind in ("regression", "question_answering"):
        section = TaskSection(type=kind)  # type: ignore[arg-type]
        data = DataSection(text=["text"]) if kind == "regression" else DataSection()
        with pytest.raises(RecipeError, match=f"not apply to {kind}, which has no classes"):
            build_task(section, data).weight_classes("balanced", CLASSES)


def test_the_weighted_loss_by_hand() -> None:
    task = task_of("classification", {"b": 3.0})
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 1, 2])
    each = F.cross_entropy(logits, labels, reduction="none")
    weights = torch.tensor(task.class_weights).float()[labels]
    loss = task.loss({"logits": logits}, {"labels": labels})
    torch.testing.assert_close(loss, (weights * each).mean())
    # The same for halves of the batch, which torch's own weighted mean is not.
    halves = [
        task.loss({"logits": logits[rows]}, {"labels": labels[rows]})
        for rows in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(sum(halves) / 2, loss)
    words = task_of("token_classification", {"b": 3.0})
    ignored = torch.tensor([[0, -100, 1], [1, 2, -100]])
    padded = torch.randn(2, 3, 3)
    padded[ignored != -100] = logits
    torch.testing.assert_close(
        words.loss({"logits": padded}, {"labels": ignored}),
        (torch.tensor(words.class_weights).float()[labels] * each).mean(),
    )


def test_the_weighted_loss_of_labels_by_hand() -> None:
    task = task_of("multi_label", {"b": 3.0})
    logits, present = torch.randn(4, 3), torch.randint(2, (4, 3)).float()
    each = F.binary_cross_entropy_with_logits(logits, present, reduction="none")
    weights = 1 + present * torch.tensor([0.0, 2.0, 0.0])
    loss = task.loss({"logits": logits}, {"labels": present})
    torch.testing.assert_close(loss, (weights * each).mean())


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("weights", ["balanced", {"b": 4.0}, {"a": 1.0}])
def test_the_prior_minimizes_the_weighted_loss(kind: TaskType, weights: Any) -> None:
    rows = {
        "classification": Dataset.from_dict({"label": [0] * 600 + [1] * 300 + [2] * 100}),
        "multi_label": Dataset.from_dict(
            {"label": [[1.0, 0.0, 1.0]] * 500 + [[0.0, 1.0, 0.0]] * 200}
        ),
        "token_classification": Dataset.from_dict({"labels": [[0] * 600, [1] * 300, [2] * 100]}),
    }[kind]
    task = task_of(kind)
    task.weight_classes(weights, rows)
    column = rows["labels" if kind == "token_classification" else "label"]
    labels = torch.tensor([n for row in column for n in row] if "token" in kind else column[:])

    def loss(logits: Any) -> float:
        repeated = torch.tensor(np.tile(logits, (len(labels), 1)))
        return float(task.linear_loss(repeated, {"labels": labels}))

    prior = task.prior(rows)
    assert prior is not None
    lowest = minimize(loss, prior.logits, method="Nelder-Mead").fun
    assert loss(prior.logits) == pytest.approx(lowest, abs=1e-5)
    assert prior.loss == pytest.approx(lowest, abs=1e-5)


def test_the_constant_prediction_is_still_the_most_frequent_class() -> None:
    prior = task_of("classification", "balanced").prior(CLASSES, weighted=False)
    assert prior is not None
    assert prior.logits.argmax() == 0
    assert prior.logits == pytest.approx(task_of("classification").prior(CLASSES).logits)  # type: ignore[union-attr]
