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
