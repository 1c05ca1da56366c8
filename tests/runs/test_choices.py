"""Class weights, thresholds and calibration, from training to `dcft eval`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.errors import RecipeError
from dcft_cli.recipe import LoadedRecipe
from dcft_cli.runs.evaluate import EvaluationResult, evaluate
from dcft_cli.runs.plan import plan_training
from tests.jobs import Job, Watcher, recipe, train
from tests.samples import rows_of, write_rows

CHOICES = ("task.threshold=best", "task.calibrate=true")


def own(folder: Path, base: Path, *more: str) -> LoadedRecipe:
    """A recipe of multi-label data with validation rows that have few labels."""
    return recipe("multi_label", folder, base, "training.learning_rate=0.05", *more)


@pytest.fixture(scope="module")
def job(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    return train(own(folder, base, *CHOICES), folder / "run")


def score(source: Path, *overrides: str) -> EvaluationResult:
    return evaluate(str(source), overrides, Watcher())


def test_the_choice_is_kept_with_the_adapter(job: Job, tmp_path: Path) -> None:
    chosen = read_adapter(job.folder / "adapter.safetensors").info["decision"]
    assert chosen.keys() == {"temperature", "thresholds"}
    assert job.metrics["decision"] == chosen
    assert chosen["thresholds"] not in (0.5, None) and chosen["temperature"] != 1.0
    # On the rows it was chosen on, no threshold is better; metrics.json has the same scores.
    result = score(job.folder)
    assert result.metrics == pytest.approx(job.metrics["metrics"], abs=1e-6)
    assert result.metrics["micro_f1"] == result.metrics["best_micro_f1"]
    assert (result.decision, result.chosen) == (chosen, ("temperature", "thresholds"))
    # On other rows, the same threshold is used, not the best one of these.
    other = write_rows(tmp_path / "other.jsonl", rows_of("multi_label", 30, seed=9))
    copy = Path(shutil.copy(job.folder / "adapter.safetensors", tmp_path / "copy.safetensors"))
    for source in (job.folder, copy):
        result = score(source, f"data.validation={other}", "training.device=cpu")
        assert result.decision == chosen
        assert result.metrics["best_micro_f1_threshold"] != chosen["thresholds"]
        classes = result.reports["validation"]["classes"].values()
        assert {scores["threshold"] for scores in classes} == {chosen["thresholds"]}
    assert json.loads(json.dumps(result.to_json()))["reports"] == result.reports


def test_the_report_is_that_of_the_best_checkpoint(job: Job) -> None:
    stored, found = job.metrics["reports"]["validation"], score(job.folder).reports["validation"]
    assert stored["classes"] == found["classes"]
    assert stored["confusions"] == found["confusions"]
    assert stored["calibration"] == pytest.approx(found["calibration"], abs=1e-5)


def test_a_number_replaces_the_chosen_threshold(job: Job) -> None:
    result = score(job.folder, "task.threshold=0.9")
    assert (result.decision["thresholds"], result.chosen) == (0.9, ("temperature",))


def test_a_checkpoint_has_no_choice(job: Job) -> None:
    checkpoint = job.folder / "checkpoints" / "checkpoint-6"
    with pytest.raises(RecipeError, match="comes without what `dcft train` chooses"):
        score(checkpoint)
    assert score(checkpoint, "task.threshold=0.5", "task.calibrate=false").chosen == ()


@pytest.mark.parametrize("best", [0.1, 0.9])
def test_an_earlier_checkpoint_is_scored_again(base: Path, tmp_path: Path, best: float) -> None:
    """The decision and the report are those of the best step, whichever it is."""
    loaded = recipe("sst2", tmp_path, base, "task.calibrate=true", "training.fit_head=off")
    job = train(loaded, tmp_path / "run", scores=[0.5, best])
    assert job.metrics["best_step"] == (6 if best > 0.5 else 3)
    found = score(job.folder, "data.hub=null").reports["validation"]["calibration"]
    assert job.metrics["reports"]["validation"]["calibration"] == pytest.approx(found, abs=1e-5)


def test_regressions_have_nothing_to_choose_or_report(base: Path, tmp_path: Path) -> None:
    job = train(recipe("stsb", tmp_path, base), tmp_path / "run")
    assert (job.metrics["decision"], job.metrics["reports"]) == ({}, {})
    assert len(job.watcher.batches) == 2
    assert "decision" not in read_adapter(job.folder / "adapter.safetensors").info


def test_the_null_threshold_is_chosen(base: Path, tmp_path: Path) -> None:
    loaded = recipe("squad_v2", tmp_path, base, "task.null_threshold=best")
    job = train(loaded, tmp_path / "run")
    assert job.metrics["metrics"]["f1"] == pytest.approx(job.metrics["metrics"]["best_f1"])
    result = score(job.folder, "data.hub=null")
    assert result.decision == job.metrics["decision"]
    assert result.chosen == ("null_threshold",)
    result = score(job.folder, "data.hub=null", "task.null_threshold=-1000")
    assert (result.decision, result.chosen) == ({"null_threshold": -1000.0}, ())
    assert (result.metrics["has_answer_f1"], result.metrics["no_answer_f1"]) == (0.0, 100.0)


@pytest.fixture(scope="module")
def weighted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("weighted")
    weights = "training.class_weights={entailment: 30}"
    return train(recipe("rte", folder, base, weights, "training.fit_head=auto"), folder / "run")


def test_the_training_loss_is_weighted(weighted: Job) -> None:
    trainer, model = weighted.trainer, weighted.model.eval()
    batch: Any = next(iter(trainer.get_train_dataloader())).data
    with torch.no_grad():
        loss = trainer.compute_loss(model, dict(batch))
        logits = model(**batch).logits
        task = weighted.plan.preparation.loaded.task
        weights = torch.tensor(task.class_weights).float()
        each = F.cross_entropy(logits, batch["labels"], reduction="none")
        torch.testing.assert_close(loss, (weights[batch["labels"]] * each).mean())
    assert weights[0] / weights[1] == pytest.approx(30)


def test_the_heavy_class_is_predicted_and_nothing_is_reported_as_a_failure(weighted: Job) -> None:
    classes = weighted.metrics["reports"]["validation"]["classes"]
    assert classes["entailment"]["predicted"] > classes["not_entailment"]["predicted"]
    assert weighted.metrics["baselines"].keys() == {"constant", "fitted_head"}
    assert not any("baseline" in note or "constant's" in note for note in weighted.watcher.notes)


def test_class_weights_change_the_first_gradient(base: Path, tmp_path: Path) -> None:
    """A and B start from the gradient of the loss that is trained."""
    factors = []
    for weights in ("null", "{neutral: 30}"):
        settings = (f"training.class_weights={weights}", "adapter.init=gradient")
        loaded = recipe("mnli", tmp_path, base, *settings, "training.learning_rate=1e-9")
        job = train(loaded, tmp_path / f"run-{len(factors)}")
        factors.append([layer.A.detach().clone() for layer in job.layers])
    assert max((a - b).abs().max() for a, b in zip(*factors, strict=True)) > 1e-2


@pytest.mark.parametrize(
    ("task", "weights", "message"),
    [
        ("rte", "{entailmnet: 2}", "no class named entailmnet"),
        ("stsb", "balanced", "not apply to regression"),
        ("squad_v1", "balanced", "not apply to question_answering"),
    ],
)
def test_class_weights_that_do_not_fit_are_errors_before_any_work(
    base: Path, tmp_path: Path, task: str, weights: str, message: str
) -> None:
    loaded = recipe(task, tmp_path, base, f"training.class_weights={weights}")
    with pytest.raises(RecipeError, match=message):
        plan_training(loaded, output=str(tmp_path / "run"))
