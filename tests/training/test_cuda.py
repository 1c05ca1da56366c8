"""Mixed precision on a CUDA device, against the CPU. Runs wherever there is such a device."""

import math
from pathlib import Path

import pytest
import torch

from dcft_cli.merging.merge import merge
from dcft_cli.recipe.methods import METHODS
from dcft_cli.runs.evaluate import evaluate
from tests.acceleration.both_ways import assert_same_both_ways
from tests.families import save_base, tiny_model, tokens
from tests.jobs import Watcher, recipe, tensors, train
from tests.methods.small import small
from tests.small import adapt

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TARGETS = ("Q", "K", "V", "O", "FFN")
STEPS = ("training.device=auto", "training.max_steps=20", "training.eval_steps=10")


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
@pytest.mark.parametrize(
    "setting", ["precision=float32", "precision=bfloat16", "precision=float16"]
)
def test_training_on_cuda(family: str, setting: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", family, initializer_range=0.1)
    job = train(recipe("stsb", tmp_path, base, f"training.{setting}", *STEPS), tmp_path / "run")
    assert "cuda" in job.metrics["device"]
    assert job.metrics["precision"] == setting.partition("=")[2]
    assert job.metrics["peak_device_bytes"] > 0
    assert {p.device.type for p in job.model.parameters()} == {"cuda"}
    trained = [p for p in job.model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    assert all(math.isfinite(p.loss or math.nan) for p in job.watcher.losses)
    metrics = job.metrics["metrics"]
    assert evaluate(str(job.folder), (), Watcher()).metrics == metrics
    on_cpu = evaluate(
        str(job.folder), ["training.device=cpu", "training.precision=float32"], Watcher()
    )
    tolerance = 1e-4 if setting.endswith("float32") else 0.1
    # Not Spearman's: predictions of an untrained model differ by less than half precision rounds.
    assert on_cpu.metrics["pearson"] == pytest.approx(metrics["pearson"], abs=tolerance)
    assert merge(str(base), str(job.folder), str(tmp_path / "merged")).difference <= 1e-5


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_acceleration_computes_the_same(family: str) -> None:
    model = adapt(tiny_model(family), *TARGETS).cuda().eval()
    inputs = {name: value.cuda() for name, value in tokens().items()}
    on = assert_same_both_ways(model, lambda m: m(**inputs).logits, rtol=1e-4, atol=1e-4)
    assert set(on) >= {"layers", "factors"}


def test_a_half_precision_base(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", initializer_range=0.1)
    job = train(recipe("stsb", tmp_path, base, "model.dtype=bfloat16", *STEPS), tmp_path / "run")
    types = {p.dtype for p in job.model.parameters() if not p.requires_grad}
    assert (types, job.metrics["precision"]) == ({torch.bfloat16}, "bfloat16")
    assert all(t.dtype == torch.float32 for t in tensors(job.folder).values())
    on_cpu = evaluate(str(job.folder), ["training.device=cpu"], Watcher())
    assert on_cpu.metrics["pearson"] == pytest.approx(job.metrics["metrics"]["pearson"], abs=0.1)
    assert merge(str(base), str(job.folder), str(tmp_path / "merged")).difference <= 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_cuda(method: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", initializer_range=0.1)
    settings = (f"adapter={small(method)}", "training.precision=float32", *STEPS)
    job = train(recipe("stsb", tmp_path, base, *settings), tmp_path / "run")
    assert {p.device.type for p in job.model.parameters()} == {"cuda"}
    assert job.metrics["weight_change"] is None or job.metrics["weight_change"] > 0
    assert evaluate(str(job.folder), (), Watcher()).metrics == job.metrics["metrics"]
    on_cpu = evaluate(str(job.folder), ["training.device=cpu"], Watcher())
    assert on_cpu.metrics["pearson"] == pytest.approx(job.metrics["metrics"]["pearson"], abs=1e-3)


def test_auto_selects_cuda_and_bfloat16(tmp_path: Path) -> None:
    job = train(recipe("rte", tmp_path, save_base(tmp_path / "base"), *STEPS), tmp_path / "run")
    assert "cuda" in job.metrics["device"]
    supported = torch.cuda.is_bf16_supported(including_emulation=False)
    assert job.metrics["precision"] == ("bfloat16" if supported else "float32")


def test_the_start_equals_that_on_a_cpu(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", initializer_range=0.1)
    still = (
        "training.fit_head=auto",
        "adapter.init=gradient",
        "training.precision=float32",
        "training.learning_rate=1e-12",
        "training.max_steps=1",
    )
    cpu, cuda = (
        tensors(
            train(
                recipe("rte", tmp_path, base, *still, f"training.device={device}"),
                tmp_path / device,
            ).folder
        )
        for device in ("cpu", "cuda")
    )
    for name in cpu:
        if not name.endswith(".C"):
            cosine = torch.cosine_similarity(cpu[name].flatten(), cuda[name].flatten(), 0)
            assert cosine.abs() > 0.99, name
