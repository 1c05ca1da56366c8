"""`dcft eval`: score an adapter on validation data."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from dcft_cli.data.evaluation_set import EvaluationSet
from dcft_cli.data.writing import Row, check_output, write_rows
from dcft_cli.errors import DataError
from dcft_cli.runs.adapted import load_adapted
from dcft_cli.runs.prepare import Preparation
from dcft_cli.tasks import LoadedTask
from dcft_cli.training.arguments import evaluation_arguments
from dcft_cli.training.callbacks import ReportingCallback
from dcft_cli.training.reporting import Reporter
from dcft_cli.training.trainer import AdapterTrainer

_SET, _LABEL = "set", "label"
"""Columns that are written beside those of the rows: name of the set, true label."""


@dataclass(frozen=True)
class EvaluationResult:
    """Scores of one adapter.

    Attributes:
        rows: number of scored rows by validation set.
        data: where each validation set came from.
        decision: how logits became predictions: temperature and thresholds, where there are any.
        chosen: parts of `decision` that were chosen in training.
        reports: where predictions fail, by validation set; see tasks/report.py.
        seconds: time of scoring, without loading.
        is_main: whether this process reports the result (torchrun starts several).
    """

    task: str
    metrics: dict[str, float]
    main_metric: str
    adapter: Path
    base: str
    rows: dict[str, int]
    data: dict[str, str]
    decision: dict[str, Any]
    chosen: tuple[str, ...]
    reports: dict[str, dict[str, Any]]
    device: str
    seconds: float
    is_main: bool

    def to_json(self) -> dict[str, Any]:
        """Return the output of `--json`."""
        values = {**vars(self), "adapter": str(self.adapter), "seconds": round(self.seconds, 3)}
        del values["is_main"]
        return values


def evaluate(
    source: str, overrides: Sequence[str], reporter: Reporter, *, predictions: Path | None = None
) -> EvaluationResult:
    """Score a run's adapter, or an adapter file, on the recipe's validation data.

    Args:
        source: run folder, checkpoint folder or adapter file. The recipe is the run's, or else
            comes from the adapter file.
        overrides: `KEY=VALUE` for the recipe, such as `data.validation=test.jsonl`.
        predictions: file to write the rows to, as they were read, with their true label and what
            is predicted; its ending names the format.

    Raises:
        UserError: no adapter, no data, another base model than it was trained on, a file that
            cannot be written, or a column of the rows that has the name of one to be written.
    """
    if predictions is not None:
        check_output(predictions)
    outputs: dict[str, Any] = {}
    adapted = load_adapted(source, overrides, data=True)
    assert adapted.method is not None
    preparation, machine = adapted.preparation, adapted.machine
    recipe, task = preparation.recipe, preparation.loaded.task
    if predictions is not None:
        _check_columns(preparation.loaded)
    if machine.is_main:
        for note in preparation.notes:
            reporter.noted(note)
    metric = preparation.loaded.main_metric
    with tempfile.TemporaryDirectory() as scratch:  # the Trainer requires a folder
        trainer = AdapterTrainer(
            adapted.method,
            evaluation_arguments(recipe.training, machine, Path(scratch)),
            recipe,
            tokenizer=preparation.tokenizer,
            collator=preparation.collator(machine.device),
            evaluation_sets=[_kept(s, outputs) for s in preparation.evaluation_sets],
            reporting=ReportingCallback(reporter, None, metric=metric),
        )
        began = time.perf_counter()
        scores = trainer.evaluate()
        seconds = time.perf_counter() - began
    if predictions is not None and machine.is_main:
        write_rows(predictions, _labeled(preparation, outputs))
    return EvaluationResult(
        adapter=adapted.path,
        task=recipe.task.name or recipe.task.kind,
        base=recipe.model.name,
        main_metric=metric,
        metrics={name.removeprefix("eval_"): value for name, value in scores.items()},
        rows=preparation.validation_rows,
        data={n or "validation": s.source for n, s in preparation.loaded.validation.items()},
        decision=task.decision.to_json(task.choosable),
        chosen=adapted.chosen,
        reports=trainer.reports,
        device=machine.device_name,
        seconds=seconds,
        is_main=machine.is_main,
    )


def _kept(eval_set: EvaluationSet, outputs: dict[str, Any]) -> EvaluationSet:
    """Return the set such that the model's outputs are kept by its name when they are scored."""

    def score(predictions: Any, label_ids: Any) -> dict[str, float]:
        outputs[eval_set.name] = predictions
        return eval_set.score(predictions, label_ids)

    return replace(eval_set, score=score)


def _check_columns(loaded: LoadedTask) -> None:
    """Check that no column of the rows is one of those that are written beside them.

    Raises:
        DataError: there is one; names it.
    """
    task, sets = loaded.task, loaded.validation
    for name, rows in sets.items():
        added = {_LABEL, *task.predicted_columns, *({_SET} if name else ())}
        if task.label == (_LABEL,):  # replaced: the class that the value means
            added.remove(_LABEL)
        if taken := added.intersection(chain.from_iterable(rows.records)):
            raise DataError(
                f"{rows.source} has a column `{min(taken)}`, which --predictions would replace.",
                "Rename the column.",
            )


def _labeled(preparation: Preparation, outputs: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of all sets as they were read, with true label and what is predicted."""
    task = preparation.loaded.task
    for name, rows in preparation.loaded.validation.items():
        found = task.prediction_set(rows.dataset, preparation.tokenizer)
        predictions = found.predict(outputs[name])
        targets = rows.dataset[task.target_column]
        for record, target, prediction in zip(rows.records, targets, predictions, strict=True):
            of_set = {_SET: name} if name else {}
            yield of_set | {**record, _LABEL: task.describe_target(target), **prediction}
