"""Fine-tuning a base that is a classifier already, from training to merging."""

from pathlib import Path

import pytest
import torch
import transformers

from dcft_cli import load_adapter
from dcft_cli.errors import ModelError
from dcft_cli.merging.merge import merge
from dcft_cli.runs.evaluate import evaluate
from tests.families import config_of, tiny_tokenizer, tokens
from tests.jobs import Job, Watcher, largest_difference, recipe, train

AUTO = transformers.AutoModelForSequenceClassification
NLI = ["neutral", "contradiction", "entailment"]  # MNLI's own order is another one
STILL = "training.learning_rate=1e-12"  # what is trained stays as it started
FIT = "training.fit_head=auto"
FAMILIES = ["bert", "roberta", "distilbert", "deberta-v2", "electra"]


def save_classifier(
    folder: Path, names: list[str], family: str = "bert", task: str = "SequenceClassification"
) -> Path:
    """Save a random classifier whose configuration names its classes."""
    torch.manual_seed(1)
    config = config_of(family, num_labels=len(names), id2label=dict(enumerate(names)))
    model = getattr(transformers, f"AutoModelFor{task}").from_config(config)
    for name, parameter in model.named_parameters():
        if "classifier" in name or "out_proj" in name:
            parameter.data.normal_()
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(**tokens()).logits


@pytest.fixture(scope="module", params=FAMILIES)
def reordered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A run that hardly trains, on a base with the classes of MNLI in another order."""
    folder = tmp_path_factory.mktemp(request.param)
    base = save_classifier(folder / "base", NLI, request.param)
    settings = (STILL, "adapter.init=zero", "training.max_steps=1")
    return train(recipe("mnli", folder, base, *settings), folder / "run")


def base_of(job: Job) -> Path:
    return Path(job.plan.recipe.model.name)


def test_the_base_predicts_the_same_names(reordered: Job, tmp_path: Path) -> None:
    base = AUTO.from_pretrained(base_of(reordered))
    assert [base.config.id2label[n] for n in range(3)] == NLI
    assert "another order" in reordered.watcher.notes[0]
    order = [NLI.index(name) for name in reordered.plan.recipe.task.labels]
    expected = logits(base)[:, order]
    assert torch.allclose(logits(reordered.model), expected, atol=1e-5)

    merged = merge(str(base_of(reordered)), str(reordered.folder), str(tmp_path / "merged"))
    model = AUTO.from_pretrained(merged.folder)
    assert torch.allclose(logits(model), expected, atol=1e-5)
    names = [model.config.id2label[n] for n in range(3)]
    assert names == ["entailment", "neutral", "contradiction"]
    assert model.config.label2id == {name: n for n, name in enumerate(names)}

    loaded = load_adapter(AUTO.from_pretrained(base_of(reordered)), reordered.folder)
    assert torch.allclose(logits(loaded), expected, atol=1e-5)
    assert loaded.config.id2label == model.config.id2label

    result = evaluate(str(reordered.folder), (), Watcher())
    assert result.metrics == pytest.approx(reordered.metrics["metrics"])


def test_the_last_layer_is_trained(tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "base", NLI)
    job = train(recipe("mnli", tmp_path, base, FIT), tmp_path / "run")
    assert job.metrics["head_parameters"] == 3 * 17
    assert list(job.metrics["baselines"]) == ["constant"]  # the head is not fitted
    assert not torch.equal(
        job.model.classifier.weight.data[1], AUTO.from_pretrained(base).classifier.weight[0]
    )
    merge(str(base), str(job.folder), str(tmp_path / "merged"))
    result = evaluate(str(job.folder), (), Watcher())
    assert result.metrics == pytest.approx(job.metrics["metrics"])


def test_other_classes_get_a_new_head_that_is_fitted(tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "base", ["negative", "mixed", "positive"])
    job = train(recipe("mnli", tmp_path, base, FIT), tmp_path / "run")
    note = job.watcher.notes[0]
    assert "for other classes (negative, mixed, positive): a new last layer is trained" in note
    assert job.metrics["head_parameters"] == 3 * 17
    assert list(job.metrics["baselines"]) == ["constant", "fitted_head"]
    merge(str(base), str(job.folder), str(tmp_path / "merged"))
    names = AUTO.from_pretrained(tmp_path / "merged").config.id2label
    assert names == dict(enumerate(["entailment", "neutral", "contradiction"]))


def test_a_recipe_keeps_the_head(tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "base", NLI)
    keep = ("head.reuse=keep", STILL, "adapter.init=zero", "training.max_steps=1")
    job = train(recipe("mnli", tmp_path, base, *keep), tmp_path / "run")
    assert torch.allclose(logits(job.model), logits(AUTO.from_pretrained(base)), atol=1e-5)
    with pytest.raises(ModelError, match="no task head with 2 outputs: it has 3"):
        train(recipe("rte", tmp_path, base, "head.reuse=keep"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_run_on_a_reordered_head_can_be_resumed(tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "base", NLI)
    whole = train(recipe("mnli", tmp_path, base), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe("mnli", tmp_path, base), tmp_path / "run", stop_after=5)
    train(recipe("mnli", tmp_path, base), tmp_path / "run", resume=True)
    assert largest_difference(tmp_path / "run", whole.folder) == 0


def test_a_tagger_with_the_same_tags_in_another_order(tmp_path: Path) -> None:
    names = ["O", "I-THING", "B-THING", "B-PLACE"]
    base = save_classifier(tmp_path / "base", names, task="TokenClassification")
    settings = (STILL, "adapter.init=zero", "training.max_steps=1")
    job = train(recipe("token_classification", tmp_path, base, *settings), tmp_path / "run")
    order = [names.index(name) for name in job.plan.preparation.loaded.task.labels]
    assert order != list(range(4))
    expected = logits(transformers.AutoModelForTokenClassification.from_pretrained(base))
    assert torch.allclose(logits(job.model), expected[..., order], atol=1e-5)


def test_a_classifier_learns_to_answer_questions(tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "base", NLI)  # three labels, and two logits are needed
    job = train(recipe("squad_v2", tmp_path, base), tmp_path / "run")
    assert job.metrics["head_parameters"] == 2 * 17
    evaluate(str(job.folder), (), Watcher())


def test_training_goes_on_from_a_merged_model(base: Path, tmp_path: Path) -> None:
    for task in ("stsb", "squad_v1", "multi_label"):
        first = train(recipe(task, tmp_path, base), tmp_path / task)
        merged = merge(None, str(first.folder), str(tmp_path / f"{task}-merged")).folder
        job = train(recipe(task, tmp_path, merged, FIT), tmp_path / f"{task}-again")
        assert "training continues its last layer" in job.watcher.notes[0], task
        assert job.metrics["head_parameters"] == first.metrics["head_parameters"]
        assert "fitted_head" not in job.metrics["baselines"]
