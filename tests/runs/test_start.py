"""Before the first step: baselines, the fitted head, adapters from the first gradient."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dcft_cli.adapter.inject import adapted_weights
from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.runs import start
from dcft_cli.runs.folder import RunFolder
from dcft_cli.training.head import FittedHead, fit_head
from tests.families import save_base
from tests.jobs import Job, largest_difference, recipe, train

# A task of each family, with its main metric and what a constant prediction scores on it.
TASKS = {
    "sst2": ("accuracy", 0.5),
    "stsb": ("pearson", 0.0),
    "squad_v1": ("f1", 0.0),
    "squad_v2": ("f1", 100 / 3),
}
OWN = ("token_classification", "multi_label")
STARTED = ("training.fit_head=auto", "adapter.init=gradient")


def started(task: str, folder: Path, base: Path, *more: str, **settings: object) -> Job:
    return train(recipe(task, folder, base, *STARTED, *more), folder / "run", **settings)


@pytest.fixture(scope="module")
def jobs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    root = tmp_path_factory.mktemp("jobs")
    return {task: started(task, root / task, base) for task in (*TASKS, *OWN)}


@pytest.mark.parametrize("task", [*TASKS, *OWN])
def test_every_family_starts_from_baselines(jobs: dict[str, Job], task: str) -> None:
    job = jobs[task]
    metric = job.metrics["main_metric"]
    constant, fitted = (job.metrics["baselines"][name] for name in ("constant", "fitted_head"))
    assert constant.keys() == fitted.keys() == job.metrics["metrics"].keys()
    if task in TASKS:
        assert (metric, constant[metric]) == (TASKS[task][0], pytest.approx(TASKS[task][1]))
    lines = [json.loads(line) for line in (job.folder / "log.jsonl").read_text().splitlines()]
    at_first = [line for line in lines if line["step"] == 0]
    assert [(line["baseline"], line["scores"]) for line in at_first] == [
        ("constant", constant),
        ("fitted head", fitted),
    ]
    assert job.watcher.baselines == [("constant", constant), ("fitted head", fitted)]
    assert job.metrics["weight_change"] > 0


def test_a_fitted_head_beats_the_constant(jobs: dict[str, Job]) -> None:
    scores = jobs["sst2"].metrics["baselines"]
    assert scores["fitted_head"]["accuracy"] > scores["constant"]["accuracy"]


@pytest.mark.parametrize("task", ["rte", "squad_v2"])
def test_training_starts_from_the_base(base: Path, tmp_path: Path, task: str) -> None:
    """With learning rates of nearly zero, outputs stay those of the fitted head, scaled down."""
    still = ("training.learning_rate=1e-12",)
    job = started(task, tmp_path, base, *still, "training.max_steps=1", "training.weight_decay=0")
    contents = read_adapter(job.folder / "adapter.safetensors")
    for name, factors in contents.factors.items():
        assert abs(factors["C"]).max() < 1e-9, name
        for letter in "AB":
            assert (factors[letter] ** 2).sum() == pytest.approx(1, rel=1e-4), name


def test_without_a_fitted_head_only_the_constant_is_a_baseline(base: Path, tmp_path: Path) -> None:
    job = train(recipe("rte", tmp_path, base), tmp_path / "run")
    assert job.metrics["baselines"].keys() == {"constant"}
    assert [name for name, _ in job.watcher.baselines] == ["constant"]


def test_a_resumed_run_has_the_baselines_of_an_uninterrupted_one(
    base: Path, tmp_path: Path
) -> None:
    whole = started("mrpc", tmp_path / "whole", base)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        started("mrpc", broken, base, stop_after=5)
    job = started("mrpc", broken, base, resume=True)
    assert largest_difference(job.folder, whole.folder) == 0
    assert job.metrics["baselines"] == whole.metrics["baselines"]
    assert job.metrics["notes"] == whole.metrics["notes"]
    assert job.watcher.baselines == whole.watcher.baselines
    lines = map(json.loads, (job.folder / "log.jsonl").read_text().splitlines())
    steps = [line.get("baseline") for line in lines]
    assert steps.count("constant") == steps.count("fitted head") == 1
    assert RunFolder(job.folder).baselines()["constant"] == job.metrics["baselines"]["constant"]


def test_gradient_checkpointing_does_not_change_the_start(base: Path, tmp_path: Path) -> None:
    """It recomputes in training mode only, so its start has dropout: turned off for the test."""
    calm = save_base(tmp_path / "calm", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    plain = ("model.classifier_dropout=0", "training.max_steps=1")
    first = started("rte", tmp_path / "first", calm, *plain)
    second = started(
        "rte", tmp_path / "second", calm, *plain, "training.gradient_checkpointing=true"
    )
    assert largest_difference(first.folder, second.folder) < 1e-3
    assert torch.is_grad_enabled()


def test_only_a_run_that_does_not_learn_gets_a_note(base: Path, tmp_path: Path) -> None:
    more = ("training.max_steps=160", "training.eval_steps=40", "training.logging_steps=5")
    still = started("sst2", tmp_path / "still", base, *more, "training.learning_rate=1e-6")
    (note,) = still.metrics["notes"]
    assert "did not learn" in note and "next to nothing" in note
    assert "Raise training.learning_rate from 1e-06, to 0.005" in note
    moved = started("sst2", tmp_path / "moved", base, *more, "training.learning_rate=0.01")
    assert moved.metrics["metrics"]["accuracy"] > 0.7
    assert moved.metrics["notes"] == []


def test_a_run_that_learns_nothing_says_so_early_and_at_the_end(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", initializer_range=1e-6)
    still = ("training.learning_rate=1e-9", "training.fit_head=off")
    job = train(recipe("sst2", tmp_path, base, *still), tmp_path / "run")
    (note,) = job.watcher.notes
    assert note.startswith("Nothing is learned yet: every row is predicted ")
    assert job.watcher.events == ["scores", "note", "scores"]  # it is about the first scores
    assert job.metrics["notes"][0].startswith("This run did not learn: every row is predicted ")


@pytest.mark.parametrize(
    ("warmup", "step"),
    [(0, 2), (2, 3), (9, None)],  # after the last step, the notes on the finished run say more
)
def test_scores_of_the_first_steps_are_no_first_impression(
    tmp_path: Path, warmup: int, step: int | None
) -> None:
    base = save_base(tmp_path / "base", initializer_range=1e-6)
    steps = ("training.max_steps=10", "training.eval_steps=1", f"training.warmup_steps={warmup}")
    still = ("training.learning_rate=1e-9", "training.fit_head=off")
    job = train(recipe("sst2", tmp_path, base, *steps, *still), tmp_path / "run")
    events = job.watcher.events
    assert events.count("scores") == 10
    assert [n for n, event in enumerate(events) if event == "note"] == ([step] if step else [])


def test_adapters_without_a_gradient_are_named(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "start_from_gradient", lambda *args: ["layer.0.q", "layer.1.q"])
    notes = started("rte", tmp_path, base, "training.max_steps=1").watcher.notes
    assert any(n.startswith("2 adapters have no gradient") and "(layer.*.q)" in n for n in notes)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_head_is_fitted_with_merged_weights_where_they_are_used(
    precision: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged: list[bool] = []

    def fit(model: nn.Module, *others: Any) -> FittedHead | None:
        merged.extend(weight.merged is not None for weight in adapted_weights(model))
        return fit_head(model, *others)

    monkeypatch.setattr(start, "fit_head", fit)
    started("rte", tmp_path, base, f"training.precision={precision}", "training.max_steps=1")
    assert merged == [precision == "float32"] * 12
