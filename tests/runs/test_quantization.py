"""A base in 4 or 8 bits: trained on, scored with, and merged in full precision."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

from dcft_cli import inject, load_adapter, save_adapter
from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.errors import AdapterFileError, ModelError
from dcft_cli.merging.merge import merge
from dcft_cli.models.loading import load_config, load_model
from dcft_cli.models.quantization import make_trainable
from dcft_cli.recipe import ModelSection
from dcft_cli.runs.evaluate import evaluate
from tests.families import save_base, tokens
from tests.jobs import Job, Watcher, recipe, tensors, train

pytest.importorskip("bitsandbytes", reason="needs the extra quantization")


# bitsandbytes packs blocks of 64 numbers.
WIDE = {"hidden_size": 64, "intermediate_size": 128}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("wide"), **WIDE)


@pytest.fixture(scope="module", params=["4bit", "8bit"])
def job(
    request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Job:
    folder = tmp_path_factory.mktemp(request.param)
    more = ("adapter.kernel_size=5", f"model.quantization={request.param}")
    return train(recipe("rte", folder, base, *more), folder / "run")


def test_linear_layers_are_quantized_and_adapters_learn(job: Job) -> None:
    matrices = [adapter.target.matrix for adapter in job.layers]
    assert len(matrices) == 12 and all(matrix.is_quantized for matrix in matrices)
    trained = [p for p in job.model.parameters() if p.requires_grad]
    assert all(p.dtype == torch.float32 for p in trained)
    # AdamW has moved each of them.
    moved = job.trainer.optimizer.state
    assert all(moved[p]["exp_avg"].any() for p in trained)
    assert job.model.bert.pooler.dense.weight.dtype == torch.float32


def test_evaluation_scores_equal_training_scores(job: Job) -> None:
    result = evaluate(str(job.folder), [], Watcher())
    assert result.metrics == pytest.approx(job.metrics["metrics"])


def test_merging_uses_the_base_in_full_precision(job: Job, base: Path, tmp_path: Path) -> None:
    result = merge(str(base), str(job.folder), str(tmp_path / "merged"))
    assert (result.difference <= 1e-5, result.dtype, result.rounding) == (True, "float32", None)
    merged = AutoModelForSequenceClassification.from_pretrained(result.folder).eval()
    whole = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    adapted = load_adapter(whole, job.folder).eval()  # checks the fingerprint
    torch.testing.assert_close(merged(**tokens()).logits, adapted(**tokens()).logits)


def test_another_base_is_rejected(job: Job, base: Path, tmp_path: Path) -> None:
    save_base(tmp_path / "other", **WIDE)
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "other", num_labels=2)
    whole.bert.encoder.layer[0].output.dense.weight.data += 1
    whole.bert.save_pretrained(tmp_path / "other")
    with pytest.raises(AdapterFileError, match="other base weights"):
        merge(str(tmp_path / "other"), str(job.folder), str(tmp_path / "merged"))
    with pytest.raises(AdapterFileError, match="other base weights"):
        evaluate(str(job.folder), [f"model.name={tmp_path / 'other'}"], Watcher())


def test_a_quantized_checkpoint_is_rejected(base: Path, tmp_path: Path) -> None:
    bits = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["classifier"])
    model = AutoModelForSequenceClassification.from_pretrained(base, quantization_config=bits)
    model.save_pretrained(tmp_path)
    make_trainable(model)
    with pytest.raises(ModelError, match="quantized model has no fingerprint"):
        save_adapter(inject(model, DCFTConfig()), tmp_path / "adapter.safetensors")
    section = ModelSection(name=str(tmp_path))
    with pytest.raises(ModelError, match="stored in quantized form") as caught:
        load_model(section, load_config(section), "AutoModelForSequenceClassification")
    assert "model.quantization=4bit" in caught.value.hint


def test_without_bitsandbytes(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcft_cli.models.quantization.find_spec", lambda name: None)
    section = ModelSection(name=str(base), quantization="8bit")
    with pytest.raises(ModelError, match="bitsandbytes") as caught:
        load_model(section, load_config(section), "AutoModelForSequenceClassification")
    assert "dcft-cli[quantization]" in caught.value.hint


def test_the_gradient_start_is_close_to_that_of_the_full_precision_base(
    base: Path, tmp_path: Path
) -> None:
    still = ("training.max_steps=1", "training.learning_rate=1e-12", "adapter.init=gradient")
    kinds = {"whole": "null", "packed": "8bit"}
    starts = {
        name: tensors(
            train(
                recipe("rte", tmp_path, base, *still, f"model.quantization={bits}"),
                tmp_path / name,
            ).folder
        )
        for name, bits in kinds.items()
    }
    factors = [name for name in starts["whole"] if name.endswith((".A", ".B"))]
    assert len(factors) == 24
    for name in factors:
        whole, packed = (starts[kind][name].flatten() for kind in kinds)
        assert torch.cosine_similarity(whole, packed, 0).abs() > 0.8, name
