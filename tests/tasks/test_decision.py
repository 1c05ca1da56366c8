"""What is chosen on validation rows, and how an adapter's choice is used again."""

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from scipy.special import expit
from sklearn.metrics import f1_score
from transformers import PreTrainedTokenizerFast

from dcft_cli.errors import RecipeError
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.recipe.schema import TaskType
from dcft_cli.tasks import EvaluationSet, build_task, load_task
from dcft_cli.tasks.decision import Decision
from dcft_cli.tasks.multi_label import MultiLabel
from tests.tasks.conftest import Write

NAMES = ["a", "b", "c"]


def labels_task(**settings: Any) -> MultiLabel:
    section = TaskSection(type="multi_label", labels=NAMES, **settings)
    task = build_task(section, DataSection(text=["text"]))
    assert isinstance(task, MultiLabel)
    return task


def labels_set(task: MultiLabel, present: Any, tokenizer: PreTrainedTokenizerFast) -> EvaluationSet:
    columns = {"text": ["x"] * len(present), "label": np.asarray(present, float).tolist()}
    return task.evaluation_set("", Dataset.from_dict(columns), tokenizer)


def random_labels(seed: int = 0, rows: int = 200) -> tuple[Any, Any]:
    """Logits and labels; the labels are rare, each to another degree."""
    rng = np.random.default_rng(seed)
    present = rng.random((rows, 3)) < [0.5, 0.2, 0.05]
    return (rng.normal(size=(rows, 3)) + 2 * present - [0, 1, 3]).astype(np.float32), present


@pytest.mark.parametrize("seed", range(3))
def test_one_threshold_has_the_best_micro_f1(seed: int, tokenizer: PreTrainedTokenizerFast) -> None:
    logits, present = random_labels(seed)
    task = labels_task(threshold="best")
    eval_set = labels_set(task, present, tokenizer)
    eval_set.choose(logits)
    scores = eval_set.score(logits, present)
    assert scores["micro_f1"] == scores["best_micro_f1"]
    reachable = [
        f1_score(present, expit(logits) >= t, average="micro") for t in np.linspace(0.01, 0.99, 99)
    ]
    assert scores["micro_f1"] >= max(reachable)
    assert scores["best_micro_f1_threshold"] == task.decision.thresholds
    # Rounding crosses no threshold.
    assert eval_set.score(logits + np.float32(1e-5), present) == pytest.approx(scores, abs=1e-4)


def test_each_label_may_have_its_own_threshold(tokenizer: PreTrainedTokenizerFast) -> None:
    logits, present = random_labels()
    logits = np.hstack([logits[:, :2], logits[:, 2:]])
    present[:, 2] = False
    task = labels_task(threshold="best_per_label")
    eval_set = labels_set(task, present, tokenizer)
    eval_set.choose(logits)
    thresholds = task.decision.thresholds
    assert isinstance(thresholds, dict) and list(thresholds) == NAMES
    for number in range(2):
        reachable = [
            f1_score(present[:, number], expit(logits[:, number]) >= t)
            for t in np.linspace(0.01, 0.99, 99)
        ]
        found = f1_score(present[:, number], task.predicted(logits)[:, number])
        assert found >= max(reachable)
    common = labels_task(threshold="best")
    labels_set(common, present, tokenizer).choose(logits)
    assert thresholds["c"] == common.decision.thresholds, "c never occurs"
    report = eval_set.report(logits)
    assert report is not None
    assert [report["classes"][name]["threshold"] for name in NAMES] == list(thresholds.values())


def test_thresholds_apply_to_calibrated_probabilities(tokenizer: PreTrainedTokenizerFast) -> None:
    logits, present = random_labels()
    plain, calibrated = labels_task(threshold="best"), labels_task(threshold="best", calibrate=True)
    for task in (plain, calibrated):
        labels_set(task, present, tokenizer).choose(5 * logits)
    assert calibrated.decision.temperature > 2
    assert calibrated.decision.thresholds != plain.decision.thresholds
    assert (calibrated.predicted(5 * logits) == plain.predicted(5 * logits)).all()


def test_without_a_true_label_the_threshold_is_the_default(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    task = labels_task(threshold="best")
    labels_set(task, np.zeros((4, 3)), tokenizer).choose(np.ones((4, 3)))
    assert task.decision.thresholds == 0.5


@pytest.mark.parametrize("settings", [{}, {"threshold": 0.3}])
def test_nothing_is_chosen_unless_the_recipe_asks_for_it(
    settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    logits, present = random_labels()
    task = labels_task(**settings)
    labels_set(task, present, tokenizer).choose(logits)
    assert task.decision == Decision(thresholds=settings.get("threshold", 0.5))


def test_calibration_changes_probabilities_and_no_prediction(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    logits = 3 * rng.normal(size=(300, 3)) + 2 * np.eye(3)[labels]
    section = TaskSection(type="classification", labels=NAMES, calibrate=True)
    task = build_task(section, DataSection(text=["text"]))
    rows = Dataset.from_dict({"text": ["x"] * 300, "label": labels})
    eval_set = task.evaluation_set("", rows, tokenizer)
    before, scores = eval_set.report(logits), eval_set.score(logits, labels)
    eval_set.choose(logits)
    after = eval_set.report(logits)
    assert before is not None and after is not None
    assert task.decision.temperature == after["calibration"]["temperature"] > 1
    assert after["calibration"]["error"] < before["calibration"]["error"]
    assert before["calibration"]["temperature"] == 1.0
    assert after["calibration"]["error_without_temperature"] == before["calibration"]["error"]
    assert eval_set.score(logits, labels) == scores
    assert {**after, "calibration": 0} == {**before, "calibration": 0}


@pytest.mark.parametrize(
    ("kind", "settings", "setting"),
    [
        ("classification", {"threshold": "best"}, "task.threshold"),
        ("token_classification", {"threshold": "best_per_label"}, "task.threshold"),
        ("regression", {"calibrate": True}, "task.calibrate"),
        ("question_answering", {"calibrate": True}, "task.calibrate"),
        ("multi_label", {"null_threshold": "best"}, "task.null_threshold"),
        ("classification", {"threshold": 0.9}, "task.threshold"),
        ("token_classification", {"n_best": 3}, "task.n_best"),
        ("regression", {"unanswerable": True}, "task.unanswerable"),
    ],
)
def test_settings_of_other_families_are_errors(
    kind: TaskType, settings: dict[str, Any], setting: str
) -> None:
    section = TaskSection(type=kind, labels=NAMES, **settings)
    data = DataSection(text=["question", "context"] if kind == "question_answering" else ["tokens"])
    with pytest.raises(RecipeError, match=f"{setting} does not apply to {kind}"):
        build_task(section, data)


def test_a_null_threshold_is_chosen_among_questions_without_answers() -> None:
    settings: dict[str, Any] = {"type": "question_answering", "null_threshold": "best"}
    with pytest.raises(RecipeError, match="needs questions without an answer") as error:
        build_task(TaskSection(**settings), DataSection())
    assert "task.unanswerable=true" in error.value.hint
    task = build_task(TaskSection(**settings, unanswerable=True), DataSection())
    assert task.chosen == ("null_threshold",)


def test_choosing_needs_validation_rows(jsonl: Write) -> None:
    path = jsonl([{"text": "x", "label": "a"}, {"text": "y", "label": "b"}])
    section = TaskSection(type="classification", calibrate=True)
    with pytest.raises(RecipeError, match=r"task\.calibrate needs validation rows"):
        load_task(section, DataSection(train=path, text=["text"]))


def test_a_stored_choice_is_used_again() -> None:
    stored = {"temperature": 2.0, "thresholds": {"a": 0.1, "b": 0.2, "c": 0.3}}
    task = labels_task(threshold="best_per_label")
    assert task.restore_decision(stored) == ("temperature", "thresholds")
    assert task.decision == Decision(2.0, stored["thresholds"])
    assert task.thresholds == [0.1, 0.2, 0.3]
    # A number replaces stored thresholds; the temperature is what it applies to.
    task = labels_task(threshold=0.3)
    assert task.restore_decision(stored) == ("temperature",)
    assert task.decision == Decision(2.0, 0.3)


def test_a_choice_that_was_not_made_is_an_error() -> None:
    task = labels_task(threshold="best", calibrate=True)
    with pytest.raises(RecipeError, match=r"end of a run for task\.threshold, as check") as error:
        task.restore_decision({"temperature": 2.0})
    assert error.value.hint == "Set task.threshold=0.5."
    with pytest.raises(RecipeError, match=r"task\.calibrate and task\.threshold") as error:
        task.restore_decision({})
    assert error.value.hint == "Set task.calibrate=false task.threshold=0.5."
