from typing import get_args

from dcft_cli.recipe.schema import TaskName, TaskSection
from dcft_cli.tasks.known import KNOWN, known_task
from dcft_cli.tasks.metrics import METRICS


def test_every_task_that_a_recipe_can_name_is_known() -> None:
    assert set(KNOWN) == set(get_args(TaskName))
    assert known_task(None) is None


def test_entries_agree_with_the_kind_of_task() -> None:
    for name, known in KNOWN.items():
        kind = TaskSection(name=name).kind
        assert bool(known.labels) == (kind == "classification")
        assert 1 <= len(known.text) <= 2
        assert known.validation
        if kind != "question_answering":
            assert set(known.metrics) <= set(METRICS)


def test_metrics_are_those_that_the_paper_reports() -> None:
    assert {name: known.metrics for name, known in KNOWN.items()} == {
        "cola": ("matthews_correlation",),
        "sst2": ("accuracy",),
        "mrpc": ("accuracy", "f1"),
        "qqp": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
        "mnli": ("accuracy",),
        "qnli": ("accuracy",),
        "rte": ("accuracy",),
        "squad_v1": ("f1", "exact_match"),
        "squad_v2": ("f1", "exact_match", "best_f1", "best_exact_match"),
    }


def test_label_numbers_are_those_of_the_hub_data_sets() -> None:
    assert {name: known.labels for name, known in KNOWN.items() if known.labels} == {
        "cola": ("unacceptable", "acceptable"),
        "sst2": ("negative", "positive"),
        "mrpc": ("not_equivalent", "equivalent"),
        "qqp": ("not_duplicate", "duplicate"),
        "mnli": ("entailment", "neutral", "contradiction"),
        "qnli": ("entailment", "not_entailment"),
        "rte": ("entailment", "not_entailment"),
    }
