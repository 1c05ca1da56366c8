"""From a recipe's task and data sections to checked rows, and the task that encodes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dcft_cli.data.holdout import hold_out
from dcft_cli.data.reading import read_file, read_hub
from dcft_cli.data.rows import Rows
from dcft_cli.errors import DataError, RecipeError
from dcft_cli.recipe import is_file_address
from dcft_cli.recipe.schema import DataSection, TaskSection
from dcft_cli.tasks.base import RowSet, Task
from dcft_cli.tasks.build import build_task, columns, labels_in, labels_in_data_alone
from dcft_cli.tasks.known import known_task
from dcft_cli.tasks.metrics import LOWER_IS_BETTER
from dcft_cli.tasks.questions import ID_COLUMN


@dataclass(frozen=True)
class LoadedTask:
    """A task with its data, all of it checked.

    Attributes:
        task: encodes the rows and scores predictions.
        train: training rows; None where only an evaluation was asked for.
        validation: validation rows by the name of the set; a single set has no name ("").
        main_metric: the score that picks the best checkpoint, with the prefix of its set.
        greater_is_better: whether a higher `main_metric` is a better one.
    """

    task: Task
    train: RowSet | None
    validation: Mapping[str, RowSet]
    main_metric: str
    greater_is_better: bool


def load_task(
    task: TaskSection,
    data: DataSection,
    labels: Sequence[str] | None = None,
    *,
    training: bool = True,
) -> LoadedTask:
    """Reads and checks the data of a run.

    Args:
        task: the recipe's task section.
        data: the recipe's data section. A value that looks like a file is one, whatever `hub`
            says; without `hub` every value is.
        labels: class names of a trained adapter; None takes the recipe's, else the known
            task's, else the Hub data set's own or those found in the training data.
        training: False for an evaluation: training rows are read only where the validation rows
            are cut from them, and there must be validation rows.

    Raises:
        DataError: data that is missing, cannot be read, or does not fit the task.
        RecipeError: settings that are missing or do not fit the task.
        UserError: the package of a `package://` address is not installed.
    """
    rows = _training_rows(task, data) if training or data.holdout else None
    if not labels and rows is not None and labels_in_data_alone(task, data):
        labels = labels_in(rows, task, data)
    family = build_task(task, data, labels)
    train = RowSet(family.prepare(rows), rows.origin) if rows is not None else None
    if train is not None and data.holdout is not None:
        train, held_out = hold_out(train, family.group_column, data.holdout)
        validation = {"": held_out}
    else:
        validation = _validation_sets(task, data, family)
    if not training:
        train = None
        if not validation:
            hint = "Name it: data.validation=dev.jsonl"
            raise DataError("There is no validation data to score.", hint)
    if train is not None:
        family.check_training(train)
    metric = _main_metric(task.metric, family.metrics, list(validation))
    better = not metric.endswith(tuple(LOWER_IS_BETTER))
    return LoadedTask(family, train, validation, metric, better)


def _training_rows(task: TaskSection, data: DataSection) -> Rows:
    source = data.train or ("train" if data.hub else None)
    if source is None:
        raise DataError("There is no training data.", "Name it: data.train=train.jsonl")
    return _read(task, data, source)


def _validation_sets(task: TaskSection, data: DataSection, family: Task) -> dict[str, RowSet]:
    known = known_task(task.name)
    sources: Mapping[str, str] = {}
    if isinstance(data.validation, str):
        sources = {"": data.validation}
    elif data.validation is not None:
        sources = data.validation
    elif data.hub and known:
        sources = known.validation
    sets = {}
    for name, source in sources.items():
        rows = _read(task, data, source)
        sets[name] = RowSet(family.prepare(rows), rows.origin)
    return sets


def _read(task: TaskSection, data: DataSection, source: str) -> Rows:
    if data.hub is None or is_file_address(source):
        return read_file(source, data, "conll" if task.kind == "token_classification" else None)
    text, label = columns(task, data)
    return read_hub(data, source, [*text, *label, ID_COLUMN])


def _main_metric(wanted: str | None, metrics: Sequence[str], sets: Sequence[str]) -> str:
    """The full name of the metric `wanted`, of the first set where it does not name one."""
    prefixes = [f"{name}_" if name else "" for name in sets] or [""]
    wanted = wanted or metrics[0]
    full = {prefix + metric for prefix in prefixes for metric in metrics}
    if wanted in metrics:
        return prefixes[0] + wanted
    if wanted not in full:
        raise RecipeError(
            f"task.metric: this task has no score named {wanted}.",
            f"It has: {', '.join(sorted(full))}.",
        )
    return wanted
