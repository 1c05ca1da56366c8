"""Heads whose dense layers are not trained in full, from the recipe to a merged model."""

from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForSequenceClassification

from dcft_cli import DCFTConfig, inject, load_adapter, save_adapter
from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.errors import RunError
from dcft_cli.merging.merge import merge
from dcft_cli.runs.evaluate import evaluate
from dcft_cli.runs.inspect_adapter import inspect
from dcft_cli.training.reporting import Reporter
from tests.families import published, save_base, tokens
from tests.jobs import Job, largest_difference, recipe, tensors, train

# RoBERTa's checkpoint lacks classifier.dense and classifier.out_proj.
WEIGHT, BIAS = "classifier.dense.weight", "classifier.dense.bias"
DENSE = 16 * 17
OUTPUT = 2 * 17
ADAPTER_OF_DENSE = 2 + 2 + 8 * 8  # two windows of 8 on each side


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("roberta"), "roberta")


@pytest.fixture(scope="module")
def jobs(roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    root = tmp_path_factory.mktemp("jobs")
    return {
        dense: train(recipe("rte", root, roberta, f"head.dense={dense}"), root / dense)
        for dense in ("full", "adapter", "frozen")
    }


def test_what_is_trained_is_planned_counted_and_inspected(jobs: dict[str, Job]) -> None:
    full, adapter, frozen = (jobs[name].metrics for name in ("full", "adapter", "frozen"))
    assert full["head_parameters"] == DENSE + OUTPUT
    assert adapter["head_parameters"] == frozen["head_parameters"] == OUTPUT
    assert frozen["adapter_parameters"] == full["adapter_parameters"]
    assert adapter["adapter_parameters"] == full["adapter_parameters"] + ADAPTER_OF_DENSE
    for job in jobs.values():
        found = inspect(str(job.folder))
        for counted in (job.plan.adapter, found, inspect(str(job.folder / "recipe.yaml"))):
            assert counted.adapter_parameters == job.metrics["adapter_parameters"]
            assert counted.head_parameters == job.metrics["head_parameters"]
        assert [note for note in job.watcher.notes if "trained" in note] == []
    assert inspect(str(jobs["frozen"].folder)).to_json()["fixed"] == [BIAS, WEIGHT]


def test_only_an_adapter_changes_a_dense_layer(jobs: dict[str, Job]) -> None:
    for dense in ("adapter", "frozen"):
        contents = read_adapter(jobs[dense].folder / "adapter.safetensors")
        assert contents.fixed == {WEIGHT, BIAS}
        assert not contents.fixed & contents.head.keys()
    trained = tensors(jobs["adapter"].folder)
    assert trained["adapter.classifier.dense.C"].any()
    parameters = dict(jobs["frozen"].model.named_parameters())
    assert parameters[WEIGHT].equal(torch.eye(16)) and not parameters[BIAS].any()


@pytest.mark.parametrize("dense", ["adapter", "frozen"])
def test_a_file_is_scored_and_merged_as_it_was_trained(
    jobs: dict[str, Job], dense: str, roberta: Path, tmp_path: Path
) -> None:
    job = jobs[dense]
    scores = evaluate(str(job.folder), [], Reporter()).metrics
    assert scores == pytest.approx(job.metrics["metrics"])
    result = merge(str(roberta), str(job.folder), str(tmp_path / "merged"))
    assert result.difference <= 1e-5
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    fresh = AutoModelForSequenceClassification.from_pretrained(roberta).eval()
    loaded = load_adapter(fresh, job.folder)
    assert torch.allclose(merged(**tokens()).logits, loaded(**tokens()).logits, atol=1e-5)
    is_identity = torch.equal(merged.get_parameter(WEIGHT), torch.eye(16))
    assert is_identity == (dense == "frozen")
    again = save_adapter(loaded, tmp_path / "again.safetensors")
    assert read_adapter(again).fixed == {WEIGHT, BIAS}


def test_the_base_of_an_adapter_is_the_same_for_every_head(jobs: dict[str, Job]) -> None:
    files = [read_adapter(job.folder / "adapter.safetensors") for job in jobs.values()]
    assert len({file.base["fingerprint"] for file in files}) == 1


def test_resuming(roberta: Path, tmp_path: Path, jobs: dict[str, Job]) -> None:
    loaded = recipe("rte", tmp_path, roberta, "head.dense=adapter")
    with pytest.raises(KeyboardInterrupt):
        train(loaded, tmp_path / "run", stop_after=4)
    with pytest.raises(RunError, match=r"head\.dense: \"adapter\" -> "):
        train(recipe("rte", tmp_path, roberta), tmp_path / "run", resume=True)
    with pytest.raises(RunError, match=r"head\.dense: \"adapter\" -> "):
        frozen = recipe("rte", tmp_path, roberta, "head.dense=frozen")
        train(frozen, tmp_path / "run", resume=True)
    train(loaded, tmp_path / "run", resume=True)
    assert largest_difference(tmp_path / "run", jobs["adapter"].folder) == 0


def test_a_checkpoint_with_a_head_keeps_it(tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_config(
        transformers.AutoConfig.from_pretrained(save_base(tmp_path / "base", "roberta"))
    )
    model.save_pretrained(tmp_path / "base")
    job = train(recipe("rte", tmp_path, tmp_path / "base", "head.dense=frozen"), tmp_path / "run")
    assert job.metrics["head_parameters"] == OUTPUT  # the last layer is continued
    assert read_adapter(job.folder / "adapter.safetensors").fixed == frozenset()
    kept = dict(job.model.named_parameters())[WEIGHT]
    assert kept.equal(model.get_parameter(WEIGHT))


@pytest.mark.parametrize("name", ["deberta-v3-base", "mpnet-base"])
def test_a_base_size_encoder_has_a_file_of_at_most_120_kb(name: str, tmp_path: Path) -> None:
    config = transformers.MPNetConfig() if name == "mpnet-base" else published(name)
    config.vocab_size = 100
    model = AutoModelForSequenceClassification.from_config(config)
    inject(model, DCFTConfig(), dense="adapter")
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    assert save_adapter(model, tmp_path / "float32").stat().st_size <= 120_000
    half = save_adapter(model, tmp_path / "bfloat16", dtype=torch.bfloat16)
    assert half.stat().st_size <= 60_000


# Files in bfloat16


def test_scores_of_a_file_in_bfloat16_are_those_of_its_values(
    roberta: Path, tmp_path: Path, jobs: dict[str, Job]
) -> None:
    settings = ("head.dense=adapter", "adapter.file_dtype=bfloat16")
    job = train(recipe("rte", tmp_path, roberta, *settings), tmp_path / "run")
    file = job.folder / "adapter.safetensors"
    assert read_adapter(file).dtype == "bfloat16"
    exact, found = tensors(jobs["adapter"].folder), tensors(file)
    assert {n: t.bfloat16() for n, t in exact.items()}.keys() == found.keys()
    assert all(found[name].equal(t.bfloat16().float()) for name, t in exact.items())
    checkpoint = job.folder / "checkpoints" / "checkpoint-6" / "adapter.safetensors"
    assert read_adapter(checkpoint).dtype == "float32"
    scores = evaluate(str(job.folder), [], Reporter()).metrics
    assert scores == pytest.approx(job.metrics["metrics"])
    half = AutoModelForSequenceClassification.from_pretrained(roberta).eval()
    logits = load_adapter(half, file)(**tokens()).logits
    assert torch.allclose(logits, job.model(**tokens()).logits, atol=1e-6)
