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
from dcft_cli.recipe import LoadedRecipe, Recipe, load_recipe, recipe_from_mapping
from dcft_cli.runs.folder import RunFolder, adapter_file
from dcft_cli.runs.prepare import prepare
from dcft_cli.training.arguments import device_in_words, training_arguments
from dcft_cli.training.callbacks import ReportingCallback
from dcft_cli.training.reporting import Reporter
from dcft_cli.training.trainer import AdapterTrainer


@dataclass(frozen=True)
class EvaluationResult:
    """Scores of one adapter.

    Attributes:
        adapter: the file.
        rows: scored examples by validation set (where inputs are windowed: windows).
        origins: where each set came from.
        seconds: for the scoring, loading excluded.
        primary: whether this process speaks for all of them (torchrun).
    """

    adapter: Path
    task: str
    base: str
    main_metric: str
    metrics: dict[str, float]
    rows: dict[str, int]
    origins: dict[str, str]
    device: str
    seconds: float
    primary: bool

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "task": self.task,
            "metrics": self.metrics,
            "main_metric": self.main_metric,
            "adapter": str(self.adapter),
            "base": self.base,
            "rows": self.rows,
            "data": self.origins,
            "device": self.device,
            "seconds": round(self.seconds, 3),
        }


def evaluate(
    place: str, overrides: Sequence[str], reporter: Reporter, *, base: str | None = None
) -> EvaluationResult:
    """Scores a run's adapter, or an adapter file, on the recipe's validation data.

    Args:
        place: run folder, checkpoint folder or adapter file. The recipe is the run's, or what
            the adapter file tells of it.
        overrides: `KEY=VALUE` on top of that, such as `data.validation=test.jsonl`.
        base: base model instead of the one that the adapter names.

    Raises:
        UserError: no adapter, no data, or a base model that it was not trained on.
    """
    path = adapter_file(place)
    contents = read_adapter(path)
    recipe = _recipe(path, contents, [*overrides, *_other_base(base)])
    preparation = prepare(recipe, labels=contents.model["labels"], training=False)
    recipe = preparation.recipe
    with tempfile.TemporaryDirectory() as scratch:  # the Trainer wants a folder; stays empty
        training = recipe.training.model_copy(update={"report_to": []})  # no run to track
        args = training_arguments(training, recipe.model, output=Path(scratch))
        config, auto_class = preparation.config, preparation.auto_class
        loaded = load_model(recipe.model, config, auto_class)
        mark = base_fingerprint(loaded.model, contents.head.keys(), recipe.model, auto_class)
        model = load_adapter(loaded.model, path, base_fingerprint=mark)
        nn.Module.to(model, args.device)
        if recipe.training.acceleration == "auto":
            enable(model)
        metric = preparation.loaded.main_metric
        trainer = AdapterTrainer(
            model,
            args,
            tokenizer=preparation.tokenizer,
            collator=preparation.collator(args.device),
            evaluation_sets=preparation.evaluation_sets,
            reporting=ReportingCallback(reporter, None, metric=metric),
        )
        began = time.perf_counter()
        scores = trainer.evaluate()
        seconds = time.perf_counter() - began
    sets = preparation.evaluation_sets
    validation = preparation.loaded.validation
    return EvaluationResult(
        adapter=path,
        task=recipe.task.name or recipe.task.kind,
        base=recipe.model.name,
        main_metric=metric,
        metrics={name.removeprefix("eval_"): value for name, value in scores.items()},
        rows={held.name or "validation": len(held.features) for held in sets},
        origins={name or "validation": rows.source for name, rows in validation.items()},
        device=device_in_words(args.device),
        seconds=seconds,
        primary=args.should_save,
    )


def _other_base(base: str | None) -> list[str]:
    """Overrides for a base that stands elsewhere than the adapter says."""
    return [] if base is None else [f"model.name={base}", "model.revision=null"]


def _recipe(path: Path, contents: AdapterContents, overrides: Sequence[str]) -> Recipe:
    """The recipe of the run whose adapter or checkpoint it is, else what the adapter tells."""
    folder = path.absolute().parent
    if folder.parent.name == "checkpoints":
        folder = folder.parents[1]
    beside = RunFolder(folder).recipe
    if beside.is_file():
        loaded: LoadedRecipe = load_recipe(str(beside), overrides)
        return loaded.recipe
    if "task" not in contents.info:
        raise AdapterFileError(
            f"{path} names no task: it was saved outside `dcft train`.",
            "Score it in Python: load_adapter(model, path).",
        )
    told = dict(contents.info)
    base = {key: contents.base[key] for key in ("name", "revision") if contents.base[key]}
    told["model"] = {**told["model"], **base}
    return recipe_from_mapping(told, str(path), overrides)
