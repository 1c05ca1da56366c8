"""`dcft eval`: score an adapter on validation data."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dcft_cli.acceleration import enable
from dcft_cli.adapter_file.load import load_adapter
from dcft_cli.adapter_file.read import AdapterContents, read_adapter
from dcft_cli.errors import AdapterFileError
from dcft_cli.models.loading import base_fingerprint, load_model
from dcft_cli.recipe import Recipe, load_recipe, recipe_from_mapping
from dcft_cli.runs.folder import RunFolder, adapter_file
from dcft_cli.runs.prepare import prepare
from dcft_cli.training.arguments import evaluation_arguments
from dcft_cli.training.callbacks import ReportingCallback
from dcft_cli.training.machine import find_machine
from dcft_cli.training.reporting import Reporter
from dcft_cli.training.trainer import AdapterTrainer


@dataclass(frozen=True)
class EvaluationResult:
    """Scores of one adapter.

    Attributes:
        rows: number of scored rows (windows, if inputs are split) by validation set.
        data: where each validation set came from.
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
    device: str
    seconds: float
    is_main: bool

    def to_json(self) -> dict[str, Any]:
        """Return the output of `--json`."""
        values = {**vars(self), "adapter": str(self.adapter), "seconds": round(self.seconds, 3)}
        del values["is_main"]
        return values


def evaluate(source: str, overrides: Sequence[str], reporter: Reporter) -> EvaluationResult:
    """Score a run's adapter, or an adapter file, on the recipe's validation data.

    Args:
        source: run folder, checkpoint folder or adapter file. The recipe is the run's, or else
            comes from the adapter file.
        overrides: `KEY=VALUE` for the recipe, such as `data.validation=test.jsonl`.

    Raises:
        UserError: no adapter, no data, or another base model than it was trained on.
    """
    path = adapter_file(source)
    contents = read_adapter(path)
    recipe = _recipe(path, contents, overrides)
    machine = find_machine(recipe.training, recipe.model)
    preparation = prepare(recipe, labels=contents.model["labels"], training=False)
    recipe = preparation.recipe
    config, auto_class = preparation.config, preparation.auto_class
    model = load_model(recipe.model, config, auto_class).model
    fingerprint = base_fingerprint(model, contents.not_in_base, recipe.model, auto_class)
    load_adapter(model, path, base_fingerprint=fingerprint)
    nn.Module.to(model, machine.device)
    if recipe.training.acceleration == "auto" and machine.devices == 1:  # no nn.DataParallel
        enable(model)
    metric = preparation.loaded.main_metric
    with tempfile.TemporaryDirectory() as scratch:  # the Trainer requires a folder
        trainer = AdapterTrainer(
            model,
            evaluation_arguments(recipe.training, machine, Path(scratch)),
            recipe,
            tokenizer=preparation.tokenizer,
            collator=preparation.collator(machine.device),
            evaluation_sets=preparation.evaluation_sets,
            reporting=ReportingCallback(reporter, None, metric=metric),
        )
        began = time.perf_counter()
        scores = trainer.evaluate()
        seconds = time.perf_counter() - began
    return EvaluationResult(
        adapter=path,
        task=recipe.task.name or recipe.task.kind,
        base=recipe.model.name,
        main_metric=metric,
        metrics={name.removeprefix("eval_"): value for name, value in scores.items()},
        rows=preparation.validation_rows,
        data={n or "validation": s.source for n, s in preparation.loaded.validation.items()},
        device=machine.device_name,
        seconds=seconds,
        is_main=machine.is_main,
    )


def _recipe(path: Path, contents: AdapterContents, overrides: Sequence[str]) -> Recipe:
    """Return the recipe of the adapter's or checkpoint's run folder, else the adapter file's."""
    folder = path.absolute().parent
    if folder.parent.name == "checkpoints":
        folder = folder.parents[1]
    recipe = RunFolder(folder).recipe
    if recipe.is_file():
        return load_recipe(str(recipe), overrides).recipe
    if "task" not in contents.info:
        raise AdapterFileError(
            f"{path} names no task: it was saved outside `dcft train`.",
            "Score it in Python: load_adapter(model, path).",
        )
    base = {key: contents.base[key] for key in ("name", "revision") if contents.base[key]}
    sections = {**contents.info, "model": {**contents.info["model"], **base}}
    return recipe_from_mapping(sections, str(path), overrides)
