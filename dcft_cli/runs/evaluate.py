"""`dcft eval`: score an adapter on validation data."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dcft_cli.data.evaluation_set import EvaluationSet
from dcft_cli.data.writing import Row, check_output, write_rows
from dcft_cli.runs.adapted import load_adapted
from dcft_cli.runs.prepare import Preparation
from dcft_cli.training.arguments import evaluation_arguments
from dcft_cli.training.callbacks import ReportingCallback
from dcft_cli.training.reporting import Reporter
from dcft_cli.training.trainer import AdapterTrainer


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
        predictions: file to write the rows to, with their true label and what is predicted; its
            ending names the format.

    Raises:
        UserError: no adapter, no data, another base model than it was trained on, or a file that
            cannot be written.
    """
    if predictions is not None:
        check_output(predictions)
    outputs: dict[str, Any] = {}
    adapted = load_adapted(source, overrides, data=True)
    assert adapted.method is not None
    preparation, machine = adapted.preparation, adapted.machine
    recipe, task = preparation.recipe, preparation.loaded.task
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


def _labeled(preparation: Preparation, outputs: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of all sets: inputs, true label (`label`), and what is predicted."""
    task = preparation.loaded.task
    for name, rows in preparation.loaded.validation.items():
        found = task.prediction_set(rows.dataset, preparation.tokenizer)
        predictions = found.predict(outputs[name])
        for row, prediction in zip(rows.dataset, predictions, strict=True):
            label = task.describe_target(row.pop(task.target_column))
            yield {**({"set": name} if name else {}), **row, "label": label, **prediction}
