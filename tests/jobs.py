"""Training jobs on tiny data, in this process."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.inject import adapter_layers
from dcft_cli.adapter_file.read import file_in, read_adapter
from dcft_cli.recipe import LoadedRecipe, load_recipe
from dcft_cli.runs.plan import TrainingPlan, plan_training
from dcft_cli.runs.train import TrainingResult
from dcft_cli.runs.train import train as run
from dcft_cli.training.reporting import Progress, Reporter, Scores
from dcft_cli.training.trainer import AdapterTrainer
from tests.samples import rows_of, write_rows


@dataclass
class Watcher(Reporter):
    """A reporter that records all events, and presses Ctrl-C after step `stop_after`."""

    stop_after: int | None = None
    notes: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    steps: list[Progress] = field(default_factory=list)
    losses: list[Progress] = field(default_factory=list)
    batches: list[tuple[int, int]] = field(default_factory=list)
    scores: list[tuple[int, dict[str, float], bool]] = field(default_factory=list)
    unbeaten: list[str] = field(default_factory=list)
    baselines: list[tuple[str, dict[str, float]]] = field(default_factory=list)

    def noted(self, text: str) -> None:
        self.events.append("note")
        self.notes.append(text)

    def progress(self, progress: Progress) -> None:
        self.steps.append(progress)

    def logged(self, progress: Progress) -> None:
        self.losses.append(progress)
        if progress.step == self.stop_after:
            raise KeyboardInterrupt

    def evaluating(self, done: int, total: int) -> None:
        self.batches.append((done, total))

    def baseline(self, name: str, scores: Scores) -> None:
        self.baselines.append((name, dict(scores)))

    def evaluated(self, step: int, scores: Scores, best: bool, unbeaten: str) -> None:
        self.events.append("scores")
        self.scores.append((step, dict(scores), best))
        self.unbeaten.append(unbeaten)


@dataclass
class Job:
    """A finished training."""

    plan: TrainingPlan
    result: TrainingResult
    watcher: Watcher

    @property
    def trainer(self) -> AdapterTrainer:
        assert self.result.trainer is not None
        return self.result.trainer

    @property
    def model(self) -> nn.Module:
        return self.trainer.adapted_model

    @property
    def layers(self) -> list[DCFTAdapter]:
        return list(adapter_layers(self.model).values())

    @property
    def metrics(self) -> dict[str, Any]:
        return self.result.metrics

    @property
    def folder(self) -> Path:
        return self.result.folder.path


def overrides(task: str, folder: Path, base: Path, train: int = 24, dev: int = 12) -> list[str]:
    """Overrides that make a packaged recipe train a few quick steps on a tiny base."""
    data = folder / "data"
    validation = write_rows(data / f"{task}-dev.jsonl", rows_of(task, dev, seed=1))
    if task == "mnli":
        other = write_rows(data / "mnli-other.jsonl", rows_of(task, dev + 1, seed=2))
        validation = f"{{matched: {validation}, mismatched: {other}}}"
    return [
        f"model.name={base}",
        f"data.train={write_rows(data / f'{task}-train.jsonl', rows_of(task, train))}",
        f"data.validation={validation}",
        "data.max_length=48",
        "data.document_stride=8",
        "training.device=cpu",
        "training.learning_rate=0.01",
        "training.batch_size=8",
        "training.warmup_steps=0",
        "training.max_steps=6",
        "training.eval_steps=3",
        "training.logging_steps=1",
    ]


def recipe(task: str, folder: Path, base: Path, *more: str, **sizes: int) -> LoadedRecipe:
    """Return the packaged recipe of a task, made tiny."""
    return load_recipe(f"recipes/{task}.yaml", [*overrides(task, folder, base, **sizes), *more])


def train(
    loaded: LoadedRecipe,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    stop_after: int | None = None,
    scores: list[float] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Job:
    """Train into a folder.

    Args:
        stop_after: interrupt the training after this step.
        scores: results of the evaluations, in order, instead of the true scores.
    """
    plan = plan_training(loaded, output=str(folder), resume=resume, overwrite=overwrite)
    if scores is not None:
        plan = _with_scores(plan, scores)
    watcher = Watcher(stop_after)
    result = run(plan, watcher, callbacks=callbacks)
    return Job(plan, result, watcher)


def _with_scores(plan: TrainingPlan, scores: list[float]) -> TrainingPlan:
    remaining = iter(scores)
    (eval_set,) = plan.preparation.evaluation_sets
    name = plan.preparation.loaded.main_metric
    scripted = replace(
        eval_set,
        score=lambda predictions, labels: {name: next(remaining, 0.0)},
        constant_scores=lambda logits: {},
    )
    return replace(plan, preparation=replace(plan.preparation, evaluation_sets=[scripted]))


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return factors and head of an adapter file, or of the one in a folder, by name."""
    contents = read_adapter(file_in(path))
    factors = {
        f"adapter.{name}.{factor}": values
        for name, found in contents.factors.items()
        for factor, values in found.items()
    }
    head = {f"head.{name}": values for name, values in contents.head.items()}
    return {name: torch.tensor(values) for name, values in (factors | head).items()}


def largest_difference(a: Path, b: Path) -> float:
    """Return the largest difference between two adapter files with the same tensors."""
    first, second = tensors(a), tensors(b)
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)
