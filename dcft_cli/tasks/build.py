"""From a recipe's task and data sections to the task; no data is read."""

from collections.abc import Sequence

from dcft_cli.errors import RecipeError
from dcft_cli.recipe.schema import DataSection, TaskSection
from dcft_cli.tasks.base import Task
from dcft_cli.tasks.classification import Classification
from dcft_cli.tasks.known import known_task
from dcft_cli.tasks.question_answering import QuestionAnswering
from dcft_cli.tasks.regression import METRICS_OF_REGRESSION, Regression

_ANSWERING_METRICS = ("f1", "exact_match")
_ANSWERING_METRICS_UNANSWERABLE = (*_ANSWERING_METRICS, "best_f1", "best_exact_match")


def columns(task: TaskSection, data: DataSection) -> tuple[tuple[str, ...], str]:
    """Names of the text columns and of the label column: the recipe's, else the known task's.

    Raises:
        RecipeError: no text column is named, or not two for question answering.
    """
    known = known_task(task.name)
    answering = task.kind == "question_answering"
    text = tuple(data.text or (known.text if known else ()))
    if not text and answering:
        text = ("question", "context")
    if not text:
        raise RecipeError(
            "The recipe does not say which column holds the text.",
            'Set data.text=COLUMN, or for a pair of texts data.text="[COLUMN, COLUMN]".',
        )
    if answering and len(text) != 2:
        raise RecipeError(
            f"data.text names one column ({text[0]}); question answering needs two.",
            'Set data.text="[QUESTION_COLUMN, CONTEXT_COLUMN]".',
        )
    usual = known.label if known else "answers" if answering else "label"
    return text, data.label or usual


def declared_labels(task: TaskSection) -> tuple[str, ...] | None:
    """The class names that are known without data: the recipe's, else the known task's."""
    known = known_task(task.name)
    return tuple(task.labels or (known.labels if known else ())) or None


def build_task(task: TaskSection, data: DataSection, labels: Sequence[str] | None = None) -> Task:
    """Builds the task that a recipe describes.

    Args:
        task: the recipe's task section.
        data: the recipe's data section; only its settings of columns and lengths are used.
        labels: class names; None takes those that are known without data.

    Raises:
        RecipeError: text columns or class names are missing, or a class is named twice.
    """
    known = known_task(task.name)
    text, label = columns(task, data)
    if task.kind == "regression":
        metrics = known.metrics if known else METRICS_OF_REGRESSION
        return Regression(text, label, metrics, data.max_length)
    if task.kind == "question_answering":
        unanswerable = task.unanswerable or (known is not None and known.unanswerable)
        return QuestionAnswering(
            text=(text[0], text[1]),
            answers=label,
            metrics=_ANSWERING_METRICS_UNANSWERABLE if unanswerable else _ANSWERING_METRICS,
            max_length=data.max_length,
            document_stride=data.document_stride,
            null_threshold=task.null_threshold if unanswerable else None,
            n_best=task.n_best,
            max_answer_length=task.max_answer_length,
        )
    labels = labels or declared_labels(task)
    if labels is None:
        raise RecipeError(
            "The class names are not known without the training data.",
            'Name them in the order of their numbers: task.labels="[NAME, NAME]".',
        )
    if len(set(labels)) < len(labels):
        raise RecipeError(f"A class is named twice: {', '.join(labels)}.", "See task.labels.")
    return Classification(labels, text, label, known.metrics if known else None, data.max_length)
