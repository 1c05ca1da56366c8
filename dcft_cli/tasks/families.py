"""All task families, and the way from a recipe to a task."""

from collections.abc import Sequence

from dcft_cli.data.labels import label_key
from dcft_cli.errors import RecipeError
from dcft_cli.recipe.schema import DataSection, TaskSection, TaskType
from dcft_cli.tasks.base import Task, declared_labels
from dcft_cli.tasks.classification import Classification
from dcft_cli.tasks.multi_label import MultiLabel
from dcft_cli.tasks.question_answering.task import QuestionAnswering
from dcft_cli.tasks.regression import Regression
from dcft_cli.tasks.token_classification.task import TokenClassification

FAMILIES: dict[TaskType, type[Task]] = {
    "classification": Classification,
    "multi_label": MultiLabel,
    "question_answering": QuestionAnswering,
    "regression": Regression,
    "token_classification": TokenClassification,
}


def labels_only_in_data(task: TaskSection, data: DataSection) -> bool:
    """Return whether the training data must be read to know the class names of a task."""
    return FAMILIES[task.kind].has_classes and declared_labels(task, data) is None


def build_task(task: TaskSection, data: DataSection, labels: Sequence[str] | None = None) -> Task:
    """Build the task that a recipe describes.

    Args:
        labels: class names in the order of the model's outputs; None takes those that are known
            without reading data.

    Raises:
        RecipeError: text columns or class names are missing, a class is named twice, or `labels`
            are other classes than the recipe's.
    """
    family = FAMILIES[task.kind]
    if not family.has_classes:
        return family(task, data)
    declared = declared_labels(task, data)
    labels = labels or declared
    if labels is None:
        raise RecipeError(
            "The class names are not known without the training data.",
            'Name them in the order of their numbers: task.labels="[NAME, NAME]".',
        )
    keys = set(map(label_key, labels))
    if len(keys) < len(labels):
        raise RecipeError(f"A class is named twice: {', '.join(labels)}.", "See task.labels.")
    if declared and set(map(label_key, declared)) != keys:
        raise RecipeError(
            f"The classes that the recipe names ({', '.join(declared)}) are not those of the"
            f" adapter ({', '.join(labels)}).",
            "Name the same classes with task.labels, in the order that numbers in the data mean.",
        )
    return family(task, data, labels)
