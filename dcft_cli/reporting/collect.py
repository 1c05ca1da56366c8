"""Finished runs below folders; what is left out, and why."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dcft_cli.errors import RecipeError, RunError, listed
from dcft_cli.recipe import Recipe, load_recipe
from dcft_cli.runs.curves import Points
from dcft_cli.runs.folder import RunFolder

_MAX_LISTED = 5


class RowHashes(BaseModel):
    """What tells rows from others: their number may be the same, and a file's path is."""

    model_config = ConfigDict(frozen=True)

    train: str
    validation: dict[str, str]


class Metrics(BaseModel):
    """What a report needs of metrics.json; docs/recipes.md says what is in it.

    `metrics`, `last_metrics` and each of `baselines` are scores by name.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    main_metric: str
    metrics: dict[str, Any]
    last_metrics: dict[str, Any]
    last_step: int
    baselines: dict[str, dict[str, Any]]
    adapter_parameters: int
    head_parameters: int
    method_facts: dict[str, Any] = {}
    train_rows: int
    validation_rows: dict[str, int]
    row_hashes: RowHashes
    seconds: float
    peak_device_bytes: int | None
    device: str
    seed: int


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        scores: the main metric by optimizer step.
        baselines: the main metric of each baseline, by name.
        stored_bytes: size of the adapter file; None if it was removed.
        finished: when metrics.json was written, in seconds since 1970.
    """

    folder: Path
    recipe: Recipe
    metrics: Metrics
    scores: Points
    baselines: Mapping[str, float]
    stored_bytes: int | None
    finished: float

    @property
    def method(self) -> str:
        """The recipe's `adapter.method`."""
        return self.recipe.adapter.method

    @property
    def metric(self) -> str:
        """Name of the main metric."""
        return self.metrics.main_metric

    @property
    def adapter_parameters(self) -> int:
        """Number of the adapter's values: of AdaLoRA and SoRA, those that are left."""
        return int(
            self.metrics.method_facts.get("parameters_left", self.metrics.adapter_parameters)
        )

    @property
    def best(self) -> float:
        """The main metric of the best checkpoint, which the adapter file holds."""
        return float(self.metrics.metrics[self.metric])

    @property
    def last(self) -> float:
        """The main metric after the last step."""
        return float(self.metrics.last_metrics[self.metric])


@dataclass(frozen=True)
class Excluded:
    """A run that is not counted, and why."""

    folder: Path
    reason: str


def collect(sources: Sequence[str]) -> tuple[list[Run], list[Excluded]]:
    """Read all runs in and below the given folders, in the order of their paths.

    Raises:
        RunError: a folder does not exist, holds no run, or no run is finished.
    """
    folders: dict[Path, Path] = {}  # a folder that is given twice counts once
    for source in sources:
        root = Path(source).expanduser()
        found = sorted(_run_folders(root)) if root.is_dir() else []
        if not found:
            raise RunError(
                f"{source} {'has no run' if root.is_dir() else 'is not a folder'}.",
                "Name run folders, or folders of them: dcft report runs",
            )
        folders.update({folder.resolve(): folder for folder in found})
    read = [_read(folder) for folder in folders.values()]
    runs = [run for run in read if isinstance(run, Run)]
    excluded = [run for run in read if isinstance(run, Excluded)]
    if not runs:
        lines = [f"{run.folder}: {run.reason}" for run in excluded]
        raise RunError(
            f"No run can be counted.\n{listed(lines, _MAX_LISTED, chr(10))}",
            "Finish a run with `dcft train RECIPE --resume`, or repeat it.",
        )
    return runs, excluded


def _run_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of runs, finished or not. A folder with only a recipe is no run."""
    for path, names, files in os.walk(root):
        run = RunFolder(Path(path))
        if run.metrics.name in files or run.log.name in files or run.checkpoints.name in names:
            yield run.path
        names[:] = [n for n in names if not n.startswith(".") and n != run.checkpoints.name]


def _read(folder: Path) -> Run | Excluded:
    run = RunFolder(folder)
    if not run.recipe.is_file():
        return Excluded(folder, f"has no {run.recipe.name}")
    try:
        lines = run.log_lines()
        logged = max((line["step"] for line in lines), default=0)
        if not run.metrics.is_file():
            return Excluded(folder, f"not finished: the last step in its log is {logged}")
        metrics = Metrics.model_validate_json(run.metrics.read_text(encoding="utf-8"))
        recipe = load_recipe(str(run.recipe)).recipe
    except RecipeError as error:
        return Excluded(folder, f"its recipe does not fit: {error.message.splitlines()[0]}")
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "the file"
        return Excluded(folder, f"damaged: metrics.json, {place}: {problem['msg']}")
    except (OSError, RunError, ValueError, TypeError, KeyError) as error:
        return Excluded(folder, f"damaged: a file cannot be read ({error})")
    if reason := _problem(metrics, recipe, logged):
        return Excluded(folder, reason)
    metric = metrics.main_metric
    scored = [line for line in lines if metric in line.get("scores", {})]
    return Run(
        folder=folder,
        recipe=recipe,
        metrics=metrics,
        scores=[(s["step"], s["scores"][metric]) for s in scored if "baseline" not in s],
        baselines={n: s[metric] for n, s in metrics.baselines.items() if metric in s},
        stored_bytes=run.adapter.stat().st_size if run.adapter.is_file() else None,
        finished=run.metrics.stat().st_mtime,
    )


def _problem(metrics: Metrics, recipe: Recipe, logged: int) -> str | None:
    """Return why a run cannot be counted; None if it can.

    Args:
        logged: the last step in its log.
    """
    if not metrics.metrics:
        return "has no scores: it was trained without validation rows"
    metric = metrics.main_metric
    for scores in (metrics.metrics, metrics.last_metrics):
        if not isinstance(value := scores.get(metric), (int, float)) or not math.isfinite(value):
            return f"damaged: {metric} is not a number"
    if metrics.seed != recipe.training.seed:
        return "damaged: metrics.json and recipe.yaml have different seeds"
    if logged > metrics.last_step:
        return "not finished: it was continued after metrics.json was written"
    return None
