"""Merging an adapter into its base, and the proof that comes with it."""

import math
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from dcft_cli import DCFTConfig, adapter_layers, inject, save_adapter
from dcft_cli.adapter.inject import base_parameters
from dcft_cli.adapter_file.contents import Contents
from dcft_cli.errors import AdapterFileError, MergeError, ModelError, RunError
from dcft_cli.merging import merge as merging
from dcft_cli.merging.merge import merge
from dcft_cli.merging.proof import largest_difference
from dcft_cli.methods.method import Method
from tests.families import save_base, tokens
from tests.jobs import Job, recipe, train
from tests.merging.adapters import AUTO, adapter_for


@pytest.fixture(scope="module")
def job(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    strong = ("training.learning_rate=0.2", "adapter.orthogonality=1", "adapter.scale=8")
    return train(recipe("stsb", folder, base, *strong), folder / "run")


def test_result(job: Job, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "parents"
    result = merge(str(base), str(job.folder), str(out))
    files = {file.name: file.stat().st_size for file in out.iterdir()}
    assert files.keys() == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (result.folder, result.layers, result.bytes) == (out, 12, sum(files.values()))
    assert result.difference <= 1e-5
    assert len({file.stat().st_mode for file in out.iterdir()}) == 1
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_the_merged_model_is_base_plus_delta_weight(job: Job, base: Path, tmp_path: Path) -> None:
    merge(str(base), str(job.folder), str(tmp_path / "merged"))
    merged = dict(AUTO.from_pretrained(tmp_path / "merged").named_parameters())
    base_weights = base_parameters(job.model)
    assert merged.keys() == base_weights.keys()
    for layer in adapter_layers(job.model).values():
        name = layer.target.matrix.parameter_name
        expected = base_weights.pop(name) + layer.delta_weight()
        assert torch.allclose(merged.pop(name), expected, atol=1e-6)
        assert layer.delta_weight().abs().max() > 1e-3
    assert all(torch.equal(merged[name], weight) for name, weight in base_weights.items())


def test_merging_a_checkpoint_and_a_half_precision_run(base: Path, tmp_path: Path) -> None:
    job = train(recipe("stsb", tmp_path, base, "model.dtype=bfloat16"), tmp_path / "run")
    for number, adapter in enumerate((job.folder, job.folder / "checkpoints" / "checkpoint-3")):
        result = merge(str(base), str(adapter), str(tmp_path / str(number)))
        assert result.difference <= 1e-5
        assert AUTO.from_pretrained(result.folder).dtype == torch.float32


@pytest.mark.parametrize(
    ("asked", "written"),
    [("base", "bfloat16"), ("float32", "float32"), ("float16", "float16")],
)
def test_a_half_precision_checkpoint_is_rounded_once(
    asked: merging.DTypeChoice, written: str, base: Path, tmp_path: Path
) -> None:
    half = AUTO.from_pretrained(base, dtype=torch.bfloat16)
    half.bert.save_pretrained(tmp_path / "base")
    for file in base.glob("token*"):
        (tmp_path / "base" / file.name).write_bytes(file.read_bytes())
    job = train(recipe("stsb", tmp_path, tmp_path / "base", "model.dtype=bfloat16"), tmp_path / "r")
    result = merge(str(tmp_path / "base"), str(job.folder), str(tmp_path / "m"), dtype=asked)
    assert (result.difference <= 1e-5, result.dtype) == (True, written)
    assert (result.rounding is None) == (written == "float32")
    merged = AUTO.from_pretrained(result.folder)
    assert {str(p.dtype) for p in merged.parameters()} == {f"torch.{written}"}
    weights = dict(merged.named_parameters())
    for layer in adapter_layers(job.model).values():
        exact = layer.target.matrix.parameter.double() + layer.delta_weight(torch.float64)
        found = weights[layer.target.matrix.parameter_name]
        # One rounding from float32, which is itself half a unit of float32 off.
        torch.testing.assert_close(found, exact.float().to(found.dtype), rtol=0, atol=0)


def test_an_adapter_made_in_python(base: Path, tmp_path: Path) -> None:
    """Without recipe, task and base name in it."""
    model = inject(
        AUTO.from_pretrained(base, num_labels=4), DCFTConfig(kernel_size=3, rank=2)
    ).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    result = merge(str(base), str(save_adapter(model, tmp_path)), str(tmp_path / "merged"))
    found = AUTO.from_pretrained(result.folder).eval()(**tokens()).logits
    assert torch.allclose(found, model(**tokens()).logits, atol=1e-5)


def test_texts_are_cut_where_training_cut_them(base: Path, tmp_path: Path) -> None:
    job = train(recipe("sst2", tmp_path, base, "data.max_length=8"), tmp_path / "run")
    folder = merge(str(base), str(job.folder), str(tmp_path / "merged")).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer("the film was great " * 9, truncation=True)["input_ids"]) == 8


def test_large_outputs_may_differ_by_as_much_as_they_round(base: Path, tmp_path: Path) -> None:
    """Those of a regression to prices, for example."""
    model = inject(AUTO.from_pretrained(base, num_labels=1), DCFTConfig(kernel_size=3))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=1e4 if "classifier" in name else 0.3)
    merge(str(base), str(save_adapter(model, tmp_path)), str(tmp_path / "merged"))
    large = torch.full((2,), 1e4)
    assert largest_difference([large + 2], [large]) == pytest.approx(2e-4)


def test_special_tokens_beyond_the_vocabulary(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", mask_token_id=4000, eos_token_id=5000)
    result = merge(str(base), str(adapter_for(base)), str(tmp_path / "merged"))
    assert result.difference <= 1e-5


def test_one_model_is_in_memory_at_a_time(
    job: Job, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[nn.Module]] = []
    load_method, load_merged = merging.load_method, merging.load_merged

    def load_and_watch(model: PreTrainedModel, contents: Contents) -> Method:
        models.append(weakref.ref(model))
        return load_method(model, contents)

    def load_by_itself(folder: Path, model_class: str) -> PreTrainedModel:
        assert [model() for model in models] == [None]
        return load_merged(folder, model_class)

    monkeypatch.setattr(merging, "load_method", load_and_watch)
    monkeypatch.setattr(merging, "load_merged", load_by_itself)
    merge(str(base), str(job.folder), str(tmp_path / "merged"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_failed_proof_leaves_nothing(
    dtype: merging.DTypeChoice, job: Job, base: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    load_merged = merging.load_merged

    def load_wrong(folder: Path, model_class: str) -> PreTrainedModel:
        model = load_merged(folder, model_class)
        with torch.no_grad():
            next(model.parameters()).add_(1e-2 * torch.randn(16))
        return model

    monkeypatch.setattr(merging, "load_merged", load_wrong)
    with pytest.raises(MergeError, match=r"differs from base \+ adapter by \d") as caught:
        merge(str(base), str(job.folder), str(tmp_path / "out" / "merged"), dtype=dtype)
    assert caught.value.exit_code == 1
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_nan_among_numbers_is_no_small_difference() -> None:
    zeros, lost = torch.zeros(2), torch.tensor([0.0, float("nan")])
    assert largest_difference([zeros, zeros + 3], [zeros, zeros]) == 3
    for found in ([zeros, lost], [lost, zeros]):
        assert math.isnan(largest_difference(found, [zeros, zeros]))


def test_nan_is_no_proof(
    job: Job, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "logits", lambda model, inputs: [torch.full((1,), torch.nan)])
    with pytest.raises(MergeError, match="by nan"):
        merge(str(base), str(job.folder), str(tmp_path / "merged"))


def test_the_output_must_not_exist(job: Job, base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").touch()
    for name in ("file", "full"):
        with pytest.raises(RunError, match=f"{name} exists already"):
            merge(str(base), str(job.folder), str(tmp_path / name))
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter"]
    (tmp_path / "empty").mkdir()
    assert merge(str(base), str(job.folder), str(tmp_path / "empty")).bytes > 0


def test_an_adapter_of_another_base_is_refused(job: Job, base: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "merged")
    other = save_base(tmp_path / "other", initializer_range=0.1)
    with pytest.raises(AdapterFileError, match="trained on other base weights"):
        merge(str(other), str(job.folder), out)
    with pytest.raises(AdapterFileError, match="does not fit this model"):
        merge(str(save_base(tmp_path / "wide", hidden_size=32)), str(job.folder), out)
    with pytest.raises(ModelError, match="There is no base model"):
        merge(str(tmp_path / "nowhere"), str(job.folder), out)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((job.folder / "adapter.safetensors").read_bytes()[:-10])
    with pytest.raises(AdapterFileError, match="truncated"):
        merge(str(base), str(cut), out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.safetensors", "other", "wide"]
