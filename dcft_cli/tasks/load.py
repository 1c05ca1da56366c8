"""From a recipe's task and data sections to the task, with checked rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dcft_cli.data.holdout import hold_out, normal_form
from dcft_cli.data.reading import read_file, read_hub
from dcft_cli.data.rows import MAX_LISTED, Rows, RowSet, format_value
from dcft_cli.data.similar_names import similar_names
from dcft_cli.errors import DataError, RecipeError, did_you_mean, listed
from dcft_cli.recipe.schema import DataSection, HoldoutSection, TaskSection
from dcft_cli.tasks.base import Task
from dcft_cli.tasks.decision import CHOOSING
from dcft_cli.tasks.families import FAMILIES, build_task, labels_only_in_data
from dcft_cli.tasks.known import known_task
from dcft_cli.tasks.metrics import greater_is_better

MOST_REPEATED = 0.05
"""Share of validation rows with the texts of a training row up to which nothing is said."""


@dataclass(frozen=True)
class LoadedTask:
    """A task with its checked data.

    Attributes:
        task: encodes the rows and scores predictions.
        main_metric: metric that picks the best checkpoint, with the prefix of its set.
        train: training rows; None for an evaluation.
        validation: validation rows by the name of the set; a single set has no name ("").
        holds_out: whether the validation rows were split off from the training rows.
        notes: what was left out of the data, or looks wrong in it.
    """

    task: Task
    main_metric: str
    train: RowSet | None = None
    validation: Mapping[str, RowSet] = field(default_factory=dict)
    holds_out: bool = False
    notes: Sequence[str] = ()

    @property
    def greater_is_better(self) -> bool:
        """Whether a higher `main_metric` is better."""
        return greater_is_better(self.main_metric)


def load_task(
    task: TaskSection,
    data: DataSection,
    labels: Sequence[str] | None = None,
    *,
    training: bool = True,
) -> LoadedTask:
    """Read and check the data of a run.

    Args:
        data: without `hub`, `train` and `validation` are files; with it, they
            are splits unless they look like files.
        labels: class names of a trained adapter; None takes the recipe's, else the known
            task's, else the Hub data set's own or those found in the training data.
        training: False for an evaluation: training rows are read only if the validation rows
            are cut from them, and there must be validation rows.

    Raises:
        DataError: data that is missing, cannot be read, or does not fit the task.
        RecipeError: settings that are missing or do not fit the task.
        UserError: the package of a `package://` address is not installed.
    """
    rows = _training_rows(task, data) if training or data.holdout else None
    if not labels and rows is not None and labels_only_in_data(task, data):
        task, labels = _find_labels(rows, task, data)
    built = build_task(task, data, labels)
    train = None
    notes: list[str] = []
    if rows is not None:
        train = RowSet(built.prepare(rows), rows.source)
        notes = [*rows.notes, *_similar_classes(built, train), *_empty_classes(built, train)]
    if rows is not None and train is not None and data.holdout is not None:
        whole = train
        train, held_out = _split(whole, rows, built, data.holdout)
        validation = {"": held_out}
        notes += _lost_classes(built, whole, train)
    else:
        validation, more = _validation_sets(task, data, built, training=training)
        notes += more
    _check_sets(built, train if training else None, validation)
    notes += _repeated_rows(built, train if training else None, validation)
    return LoadedTask(
        built,
        _main_metric(task.metric, built.metrics, list(validation)),
        train if training else None,
        validation,
        data.holdout is not None,
        notes,
    )


def _find_labels(
    rows: Rows, task: TaskSection, data: DataSection
) -> tuple[TaskSection, tuple[str, ...]]:
    """Return the class names in training rows; the task has them too if their order is declared."""
    family = FAMILIES[task.kind]
    _, (column, *_) = family.columns(task, data)
    labels = family.find_labels(rows, column, data)
    if rows.class_names.get(column):  # by the data set itself
        task = task.model_copy(update={"labels": list(labels)})
    return task, labels


def _split(
    prepared: RowSet, rows: Rows, task: Task, holdout: HoldoutSection
) -> tuple[RowSet, RowSet]:
    """Return the training part of prepared rows, and the part held out for validation."""
    train, held_out = hold_out(prepared, task.group_column, task.class_column, holdout)
    return (
        RowSet(prepared.dataset.select(train), f"{rows.source} (training part)"),
        RowSet(
            prepared.dataset.select(held_out),
            f"{rows.source} (held-out part)",
            [rows.with_class_names(rows.records[index], task.labels) for index in held_out],
        ),
    )


def _check_sets(task: Task, train: RowSet | None, validation: Mapping[str, RowSet]) -> None:
    """Check that there are the rows that training, or else an evaluation, needs.

    Raises:
        DataError, RecipeError: there are not.
    """
    if train is not None:
        task.check_training(train)
    elif not validation:
        raise DataError(
            "There is no validation data to score.", "Name it: data.validation=dev.jsonl"
        )
    if task.chosen and not validation:
        raise RecipeError(
            f"{CHOOSING[task.chosen[0]].setting} needs validation rows to choose on, and there are "
            "none.",
            "Set data.validation or data.holdout.",
        )


def _similar_classes(task: Task, train: RowSet) -> list[str]:
    """Return a note if some of the classes that were found, not declared, may be the same."""
    if task.order:
        return []
    counts = task.label_counts(train.dataset)
    rows = {name: counts[number] for number, name in enumerate(task.labels)}
    pairs = [
        f"{format_value(a)} ({rows[a]:,}) and {format_value(b)} ({rows[b]:,})"
        for a, b in similar_names(rows)
    ]
    found = listed(pairs, MAX_LISTED, "; ")
    advice = "correct the labels in the file, or, if they differ, list all of them in task.labels"
    return [f"{train.source}: classes that may be the same: {found}; {advice}"] if pairs else []


def _empty_classes(task: Task, train: RowSet) -> list[str]:
    """Return a note if some of the declared classes have no training row."""
    if not task.order:
        return []
    counts = task.label_counts(train.dataset)
    empty = [name for number, name in enumerate(task.labels) if not counts[number]]
    if not empty:
        return []
    note = f"{train.source}: no row has the class {listed(empty, MAX_LISTED)}"
    if task.order[0] in empty:  # as where ratings from 1 are written as numbers
        note += f"; whole numbers in the data count from 0: 1 means {task.order[1]}"
    return [note]


def _lost_classes(task: Task, whole: RowSet, train: RowSet) -> list[str]:
    """Return a note if there are classes that only held-out rows have."""
    counts, left = task.label_counts(whole.dataset), task.label_counts(train.dataset)
    lost = [name for number, name in enumerate(task.labels) if counts[number] and not left[number]]
    if not lost:
        return []
    advice = "all such rows are held out; add rows, or set another data.holdout.seed"
    return [f"{train.source}: no row has the class {listed(lost, MAX_LISTED)}; {advice}"]


def _repeated_rows(task: Task, train: RowSet | None, validation: Mapping[str, RowSet]) -> list[str]:
    """Return a note for each validation set with many rows whose texts are in a training row."""
    if train is None or not validation:
        return []
    texts = set(_texts(task, train))
    notes = []
    for rows in validation.values():
        repeated = sum(text in texts for text in _texts(task, rows))
        if repeated > MOST_REPEATED * len(rows.dataset):
            notes.append(
                f"{rows.source}: {repeated:,} of {len(rows.dataset):,} rows have the text of a "
                "training row, so scores on them say little about new texts"
            )
    return notes


def _texts(task: Task, rows: RowSet) -> Iterator[int]:
    """Yield a hash of the texts of each row, in their normal form."""
    inputs = [name for name in rows.dataset.column_names if name != task.target_column]
    for batch in rows.dataset.select_columns(inputs).iter(1000):
        columns = ([normal_form(str(value)) for value in batch[name]] for name in inputs)
        yield from map(hash, zip(*columns, strict=True))


def _training_rows(task: TaskSection, data: DataSection) -> Rows:
    address = data.train or ("train" if data.hub else None)
    if address is None:
        raise DataError("There is no training data.", "Name it: data.train=train.jsonl")
    return _read(task, data, address)


def _validation_sets(
    task: TaskSection, data: DataSection, built: Task, *, training: bool
) -> tuple[dict[str, RowSet], list[str]]:
    """Return the validation sets, and notes on their rows."""
    known = known_task(task.name)
    addresses: str | Mapping[str, str] = known.validation if data.hub and known else {}
    if data.validation is not None:
        addresses = data.validation
    if isinstance(addresses, str):
        addresses = {"": addresses}
    sets, notes = {}, []
    for name, address in addresses.items():
        rows = _read(task, data, address)
        if not training:
            _require_labels(rows, built)
        sets[name] = RowSet(built.prepare(rows), rows.source, rows.records)
        notes += rows.notes
    return sets, notes


def _require_labels(rows: Rows, task: Task) -> None:
    """Raise DataError if rows to score have no label column: they can only be predicted."""
    missing = [column for column in task.label if rows.find_column(column) is None]
    if missing:
        raise DataError(
            f"{rows.source} has no column `{missing[0]}`, so there are no labels to score with. "
            f"It has: {', '.join(rows.columns)}.",
            f"{did_you_mean(missing[0], rows.columns)}Name the label column with data.label, or "
            "predict rows without labels: dcft predict ADAPTER FILE",
        )


def _read(task: TaskSection, data: DataSection, address: str) -> Rows:
    family = FAMILIES[task.kind]
    if data.is_file(address):
        return read_file(address, data, family.txt_format)
    text, label = family.columns(task, data)
    return read_hub(data, address, [*text, *label])


def _main_metric(wanted: str | None, metrics: Sequence[str], sets: Sequence[str]) -> str:
    """Return the full name of the metric `wanted`, by default of the first metric and set."""
    prefixes = [f"{name}_" if name else "" for name in sets] or [""]
    wanted = wanted or metrics[0]
    if wanted in metrics:
        return prefixes[0] + wanted
    available = {prefix + metric for prefix in prefixes for metric in metrics}
    if wanted not in available:
        raise RecipeError(
            f"task.metric: this task has no score named {wanted}.",
            f"It has: {', '.join(sorted(available))}.",
        )
    return wanted
