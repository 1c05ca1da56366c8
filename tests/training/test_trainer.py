"""Optimizer steps, scoring, and the content of checkpoints."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback

from dcft_cli.adapter.inject import adapter_layers, head_parameters
from dcft_cli.training.length_groups import SeededLengthGroups
from tests.families import save_base
from tests.jobs import Job, largest_difference, recipe, tensors, train

CALM = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base without dropout, so that steps can be computed by hand."""
    return save_base(tmp_path_factory.mktemp("calm"), **CALM)


@pytest.fixture(scope="module")
def job(calm: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    return train(recipe("mrpc", folder, calm), folder / "run")


class PassTypes(TrainerCallback):
    """Record in which types the model's passes compute, by whether they are training steps."""

    def __init__(self) -> None:
        self.found: set[tuple[bool, torch.dtype]] = set()

    def on_train_begin(self, *args: Any, model: nn.Module, **kwargs: Any) -> None:
        model.get_submodule("bert.encoder.layer.0.attention.self.query").register_forward_hook(
            lambda layer, inputs, output: self.found.add((layer.training, output.dtype))
        )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_passes_have_the_precision_of_the_recipe_and_not_of_the_launcher(
    calm: Path, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"float32": "bf16", "bfloat16": "no"}[precision]
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", other)
    settings = (f"training.precision={precision}", "training.acceleration=off")
    types = PassTypes()
    job = train(recipe("mrpc", tmp_path, calm, *settings), tmp_path / "run", callbacks=[types])
    expected = getattr(torch, job.metrics["precision"])
    assert types.found == {(True, expected), (False, expected)}
    assert job.metrics["precision"] == precision


def batch(job: Job) -> dict[str, torch.Tensor]:
    loader = job.trainer.get_train_dataloader()
    return next(iter(loader)).data


def by_hand(factors: list[torch.Tensor], form: str) -> torch.Tensor:
    """Eq. 4 in a loop; every factor with its vectors as rows."""
    distances = [torch.linalg.norm(f @ f.T - torch.eye(len(f))) for f in factors]
    squares = [distance**2 for distance in distances]
    return sum(squares) if form == "squared" else sum(distances) / len(distances)


@pytest.mark.parametrize("form", ["mean_norm", "squared"])
def test_orthogonality_is_only_in_the_training_loss(calm: Path, tmp_path: Path, form: str) -> None:
    settings = ("adapter.rank=2", "adapter.orthogonality=0.7", f"adapter.orthogonality_form={form}")
    job = train(recipe("mrpc", tmp_path, calm, *settings), tmp_path / "run")
    inputs = batch(job)
    with torch.no_grad():
        job.model.train()
        training = job.trainer.compute_loss(job.model, dict(inputs))
        job.model.eval()
        scoring = job.trainer.compute_loss(job.model, dict(inputs))
        labels = inputs.pop("labels")
        plain = F.cross_entropy(job.model(**inputs).logits, labels)
        factors = [f for layer in job.layers for f in (layer.A, layer.B.T)]
        term = by_hand(factors, form)
    assert term > 0.1
    assert scoring.item() == pytest.approx(plain.item(), rel=1e-5)
    assert training.item() == pytest.approx((plain + 0.7 * term).item(), rel=1e-5)


@pytest.mark.parametrize("task", ["mrpc", "stsb"])
def test_accumulated_batches_equal_one_large_batch(task: str, calm: Path, tmp_path: Path) -> None:
    """Loss, gradient norm and result, also in the short last step of an epoch."""
    logs, folders = [], []
    for batch_size, parts in ((8, 1), (4, 2)):
        settings = (
            f"training.batch_size={batch_size}",
            f"training.gradient_accumulation_steps={parts}",
            "training.group_by_length=false",
            "model.classifier_dropout=0",
            "adapter.orthogonality=0.5",
            "training.max_grad_norm=0.1",
        )
        loaded = recipe(task, tmp_path, calm, *settings, train=20)
        job = train(loaded, tmp_path / f"run-{parts}")
        assert job.metrics["train_rows"] % 8 == 4
        lines = (job.folder / "log.jsonl").read_text().splitlines()
        logs.append([line for line in map(json.loads, lines) if "loss" in line])
        folders.append(job.folder)
    whole, parts = logs
    for name in ("loss", "grad_norm", "learning_rate"):
        expected = [line[name] for line in whole]
        assert [line[name] for line in parts] == pytest.approx(expected, rel=1e-3), name
    assert largest_difference(*(f / "checkpoints" / "checkpoint-6" for f in folders)) < 2e-4


def test_length_groups_depend_only_on_seed_and_epoch() -> None:
    lengths = [number * 7 % 50 for number in range(200)]

    def order(seed: int, epoch: int) -> list[int]:
        sampler = SeededLengthGroups(8, lengths, seed)
        sampler.epoch = epoch
        torch.rand(1)  # an earlier draw changes nothing
        return list(sampler)

    assert order(1, 0) == order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0) != order(1, 1)
    assert sorted(order(1, 1)) == list(range(200))
    batches = [order(1, 0)[start : start + 8] for start in range(0, 200, 8)]
    ranges = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
    assert sum(ranges) / len(ranges) < 10  # of 50


class TrainingLabels(TrainerCallback):
    """Records the labels of every training batch."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []

    def on_train_begin(self, *_: object, model: nn.Module, **__: object) -> None:
        def record(module: nn.Module, args: object, inputs: dict[str, torch.Tensor]) -> None:
            if module.training:
                self.batches.append(inputs["labels"].tolist())

        model.register_forward_pre_hook(record, with_kwargs=True)


@pytest.mark.parametrize("grouped", ["true", "false"])
def test_every_epoch_has_its_own_order(calm: Path, tmp_path: Path, grouped: str) -> None:
    settings = (f"training.group_by_length={grouped}", "training.batch_size=24")
    loaded = recipe("stsb", tmp_path, calm, *settings, "training.max_steps=3")
    labels = TrainingLabels()
    train(loaded, tmp_path / "run", callbacks=[labels])
    rows = labels.batches
    assert len(rows) == 3
    assert rows[0] != rows[1] != rows[2] != rows[0]
    assert sorted(rows[0]) == sorted(rows[1]) == sorted(rows[2])


@pytest.mark.parametrize("task", ["mrpc", "squad_v1"])
def test_predictions_come_in_the_order_of_the_features(
    task: str, calm: Path, tmp_path: Path
) -> None:
    """They equal those of each row in a batch of its own, without padding."""
    small = "training.eval_batch_size=5"
    job = train(recipe(task, tmp_path, calm, small, "training.learning_rate=0.1"), tmp_path / "run")
    (eval_set,) = job.trainer.evaluation_sets
    seen: list[Any] = []
    job.trainer.evaluation_sets = [
        dataclasses.replace(eval_set, score=lambda found, labels: seen.append(found) or {"x": 0.0})
    ]
    job.trainer.reporting.metric = "x"
    job.trainer.evaluate()
    outputs = seen[0] if isinstance(seen[0], tuple) else (seen[0],)
    assert len(outputs[0]) == len(eval_set.features) > 10
    names = [
        name for name in ("input_ids", "attention_mask") if name in eval_set.features.column_names
    ]
    for number, row in enumerate(eval_set.features.select_columns(names)):
        inputs = {name: torch.tensor([values]) for name, values in row.items()}
        with torch.no_grad():
            expected_outputs = job.model(**inputs).to_tuple()
        for found, expected in zip(outputs, expected_outputs, strict=True):
            width = expected.shape[1]
            assert found[number][:width] == pytest.approx(expected[0].numpy(), abs=1e-4)


def test_scoring_uses_merged_weights(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = job.trainer.evaluate()

    def refuse(*arguments: object) -> None:
        raise AssertionError("an adapter was computed")

    monkeypatch.setattr("dcft_cli.adapter.adapter.DCFTAdapter.forward", refuse)
    assert job.trainer.evaluate() == expected


def test_only_adapter_and_head_are_trained(job: Job) -> None:
    parameters = dict(job.model.named_parameters())
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    stored = {f"adapter.{name}.{f}" for name in adapter_layers(job.model) for f in "ABC"}
    stored |= {f"head.{name}" for name in head_parameters(job.model)}
    assert tensors(job.folder).keys() == stored
    assert len(trained) == len(stored)
    job.model.zero_grad()
    job.trainer.compute_loss(job.model, batch(job)).backward()
    with_gradient = {name for name, p in parameters.items() if p.grad is not None}
    assert with_gradient == trained
    optimizer = job.trainer.optimizer
    assert optimizer is not None
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert optimized == {id(parameters[name]) for name in trained}


def test_a_checkpoint_is_as_small_as_the_adapter(job: Job) -> None:
    trained = sum(t.numel() for t in tensors(job.folder).values())
    assert trained == job.metrics["adapter_parameters"] + job.metrics["head_parameters"]
    for checkpoint in (job.folder / "checkpoints").iterdir():
        names = sorted(file.name for file in checkpoint.iterdir())
        tensor_files = ["optimizer.safetensors", "random.safetensors"]
        json_files = ["manifest.json", "run_state.json", "trainer_state.json"]
        assert names == sorted(["adapter.safetensors", *tensor_files, *json_files])
        assert sum(t.numel() for t in tensors(checkpoint).values()) == trained
        state = load_file(checkpoint / "optimizer.safetensors")
        # Two moments of each trained number, and a step count of each tensor.
        assert sum(t.numel() for t in state.values()) == 2 * trained + len(state) // 3
        # 12 bytes a number; the rest is names and random states.
        size = sum(file.stat().st_size for file in checkpoint.iterdir())
        assert size < 12 * trained + 80_000


def test_the_base_weights_are_not_copied(job: Job) -> None:
    """No layer keeps a second copy of its frozen weight."""
    frozen = [p for p in job.model.parameters() if not p.requires_grad]
    layers = [m for m in job.model.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    buffers = sum(b.numel() for b in job.model.buffers())
    assert len({p.data_ptr() for p in frozen}) == len(frozen)
    assert len({m.weight.data_ptr() for m in layers}) == len(layers)
    assert buffers < 500


def test_the_head_has_its_own_learning_rate(base: Path, tmp_path: Path) -> None:
    rates = ("training.learning_rate=0.01", "training.head_learning_rate=0.5")
    job = train(recipe("rte", tmp_path, base, *rates), tmp_path / "run")
    names = {id(p): name for name, p in job.model.named_parameters()}
    found = {
        names[id(p)]: (group["initial_lr"], group["weight_decay"])
        for group in job.trainer.optimizer.param_groups
        for p in group["params"]
    }
    assert found.keys() == {n for n, p in job.model.named_parameters() if p.requires_grad}
    assert found.pop("classifier.weight") == (0.5, 0.01)
    assert found.pop("classifier.bias") == (0.5, 0.0)
    assert set(found.values()) == {(0.01, 0.01)}
    assert max(p.learning_rate for p in job.watcher.losses) == 0.01
