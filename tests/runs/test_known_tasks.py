"""Every task that comes with a recipe, on local files, from training to evaluation."""

import json
from pathlib import Path

import pytest
import transformers

from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.merging.merge import merge
from dcft_cli.recipe import load_recipe
from dcft_cli.runs.evaluate import evaluate
from dcft_cli.runs.prepare import with_absolute_paths
from tests.families import FAMILIES, save_base
from tests.jobs import Job, Watcher, recipe, train

METRICS = {
    "cola": ["matthews_correlation"],
    "sst2": ["accuracy"],
    "mrpc": ["accuracy", "f1"],
    "qqp": ["accuracy", "f1"],
    "stsb": ["pearson", "spearman"],
    "mnli": ["matched_accuracy", "mismatched_accuracy"],
    "qnli": ["accuracy"],
    "rte": ["accuracy"],
}


def check(job: Job, task: str, base: Path) -> dict[str, float]:
    """What holds for every task; returns the best scores."""
    metrics = json.loads((job.folder / "metrics.json").read_text())
    assert metrics == job.metrics
    assert (metrics["task"], metrics["base"]) == (task, str(base))
    assert metrics["metrics"].keys() == metrics["last_metrics"].keys()
    assert metrics["best_step"] in (3, 6)
    assert metrics["last_step"] == metrics["total_steps"] == 6
    scored = {step: scores for step, scores, _ in job.watcher.scores}
    assert metrics["metrics"] == scored[metrics["best_step"]]
    assert metrics["last_metrics"] == scored[6]
    main = metrics["main_metric"]
    assert metrics["metrics"][main] == max(scores[main] for scores in scored.values())
    again = evaluate(str(job.folder), (), Watcher())
    assert again.metrics == metrics["metrics"]
    assert (again.task, again.main_metric) == (task, main)
    assert again.rows == metrics["validation_rows"]
    contents = read_adapter(job.folder / "adapter.safetensors")
    assert contents.info["task"]["name"] == task
    assert contents.info["data"]["max_length"] == 48
    kept = load_recipe(str(job.folder / "recipe.yaml")).recipe
    assert kept == with_absolute_paths(job.plan.recipe, job.folder)
    assert kept.adapter == job.plan.recipe.adapter
    return metrics["metrics"]


@pytest.mark.parametrize("task", METRICS)
def test_glue(task: str, base: Path, tmp_path: Path) -> None:
    job = train(recipe(task, tmp_path, base), tmp_path / "run")
    scores = check(job, task, base)
    assert list(scores) == METRICS[task]
    assert job.metrics["main_metric"] == METRICS[task][0]
    assert job.metrics["train_rows"] == 24
    rows = {"matched": 12, "mismatched": 13} if task == "mnli" else {"validation": 12}
    assert job.metrics["validation_rows"] == rows


@pytest.mark.parametrize("task", ["squad_v1", "squad_v2"])
def test_squad(task: str, base: Path, tmp_path: Path) -> None:
    job = train(recipe(task, tmp_path, base, train=30), tmp_path / "run")
    scores = check(job, task, base)
    assert job.metrics["main_metric"] == "f1"
    assert scores.keys() >= {"f1", "exact_match"}
    assert ("best_f1" in scores) == ("no_answer_f1" in scores) == (task == "squad_v2")
    # Contexts of up to ten sentences need several windows of 48 tokens.
    assert job.metrics["train_rows"] > 30
    assert job.metrics["validation_rows"] == {"validation": 12}


@pytest.mark.parametrize("task", ["squad_v2", "token_classification", "multi_label"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_task_in_every_family(family: str, task: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", family)
    short = () if task == "squad_v2" else ("data.max_length=16",)
    job = train(recipe(task, tmp_path, base, "training.max_steps=2", *short), tmp_path / "run")
    if task == "token_classification":
        assert job.metrics["train_rows"] > 24, "sentences need several windows of 16 tokens"
    assert evaluate(str(job.folder), (), Watcher()).metrics == job.metrics["metrics"]
    result = merge(str(base), str(job.folder), str(tmp_path / "merged"))
    assert result.difference <= 1e-5
    merged = getattr(transformers, result.model_class).from_pretrained(result.folder)
    assert type(merged) is type(job.model)
