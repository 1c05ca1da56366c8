"""From a recipe's task and data sections to the task; no data is read but for class names."""

from collections.abc import Sequence

from dcft_cli.data.rows import Rows
from dcft_cli.errors import RecipeError
from dcft_cli.recipe.schema import DataSection, TaskSection, TaskType
from dcft_cli.tasks.base import Task
from dcft_cli.tasks.classification import Classification, find_labels
from dcft_cli.tasks.known import known_task
from dcft_cli.tasks.multi_label import MultiLabel, find_label_sets
from dcft_cli.tasks.question_answering import QuestionAnswering
from dcft_cli.tasks.regression import METRICS_OF_REGRESSION, Regression
from dcft_cli.tasks.sentences import LABELS_COLUMN, WORDS_COLUMN, find_tags
from dcft_cli.tasks.token_classification import TokenClassification

_ANSWERING_METRICS = ("f1", "exact_match")
_ANSWERING_METRICS_UNANSWERABLE = (*_ANSWERING_METRICS, "best_f1", "best_exact_match")

# What the columns are called where the recipe does not say it.
_USUAL_TEXT = {
    "question_answering": ("question", "context"),
    "token_classification": (WORDS_COLUMN,),
}
_USUAL_LABEL = {"question_answering": "answers", "token_classification": LABELS_COLUMN}


def auto_class_of(kind: TaskType) -> str:
    """Name of the transformers class that loads a model for tasks of this kind."""
    families = (Classification, MultiLabel, QuestionAnswering, Regression, TokenClassification)
    return next(family.auto_class for family in families if family.kind == kind)


def columns(task: TaskSection, data: DataSection) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the text columns and of the label columns: the recipe's, else the known task's.

    There is one label column; multi-label classification may have several.

    Raises:
        RecipeError: no text column is named, or not as many as the task takes.
    """
    known = known_task(task.name)
    text = tuple(data.text or (known.text if known else _USUAL_TEXT.get(task.kind, ())))
    if not text:
        raise RecipeError(
            "The recipe does not say which column holds the text.",
            'Set data.text=COLUMN, or for a pair of texts data.text="[COLUMN, COLUMN]".',
        )
    if task.kind == "question_answering" and len(text) != 2:
        raise RecipeError(
            f"data.text names one column ({text[0]}); question answering needs two.",
            'Set data.text="[QUESTION_COLUMN, CONTEXT_COLUMN]".',
        )
    if task.kind == "token_classification" and len(text) != 1:
        raise RecipeError(
            f"data.text names two columns ({', '.join(text)}); token classification takes one.",
            "Set data.text=COLUMN, the column of words.",
        )
    usual = known.label if known else _USUAL_LABEL.get(task.kind, "label")
    label = data.label or usual
    if isinstance(label, str):
        return text, (label,)
    if task.kind != "multi_label":
        raise RecipeError(
            f"data.label names {len(label)} columns ({', '.join(label)}); {task.kind} takes one.",
            "For columns of 0 and 1, one a label, set task.type=multi_label.",
        )
    return text, tuple(label)


def declared_labels(task: TaskSection, data: DataSection | None = None) -> tuple[str, ...] | None:
    """The class names that are known without data: the recipe's, else the known task's.

    Args:
        task: the recipe's task section.
        data: its data section, in which label columns may name classes.
    """
    known = known_task(task.name)
    columns = data.label if data is not None and isinstance(data.label, list) else ()
    return tuple(task.labels or (known.labels if known else columns)) or None


def labels_in_data_alone(task: TaskSection, data: DataSection) -> bool:
    """Whether it takes the training data to know the classes of the task."""
    classes = task.kind in ("classification", "multi_label", "token_classification")
    return classes and declared_labels(task, data) is None


def labels_in(rows: Rows, task: TaskSection, data: DataSection) -> tuple[str, ...]:
    """The class names in training rows, for a task of which `labels_in_data_alone` holds.

    Raises:
        DataError: no label column; values that name no class; fewer than two classes.
    """
    _, (column, *_) = columns(task, data)
    if task.kind == "multi_label":
        return find_label_sets(rows, column, data.separator)
    if task.kind == "token_classification":
        return find_tags(rows, column)
    return find_labels(rows, column)


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
    text, (label, *more) = columns(task, data)
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
    labels = labels or declared_labels(task, data)
    if labels is None:
        raise RecipeError(
            "The class names are not known without the training data.",
            'Name them in the order of their numbers: task.labels="[NAME, NAME]".',
        )
    if len(set(labels)) < len(labels):
        raise RecipeError(f"A class is named twice: {', '.join(labels)}.", "See task.labels.")
    if task.kind == "token_classification":
        return TokenClassification(labels, text[0], label, data.max_length, data.document_stride)
    if task.kind == "multi_label":
        if more and set(labels) != {label, *more}:
            raise RecipeError(
                f"The labels ({', '.join(labels)}) are not the columns that data.label names"
                f" ({', '.join([label, *more])}).",
                "Each column is the label of its name: leave task.labels out.",
            )
        return MultiLabel(
            labels, text, [label, *more], data.separator, task.threshold, data.max_length
        )
    return Classification(labels, text, label, known.metrics if known else None, data.max_length)
