"""Adapter files: written, read back in a fresh process, and put where they belong."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dcft_cli import DCFTConfig, adapter_layers, inject, load_adapter, save_adapter
from dcft_cli.adapter.inject import head_parameters
from dcft_cli.errors import AdapterFileError, ModelError, TargetError
from tests.architectures.tiny import tiny_model as any_tiny_model
from tests.families import tiny_model, tokens
from tests.small import Fused, SmallExperts, adapt, linear


def trained(family: str = "bert", **settings: object) -> nn.Module:
    model = inject(tiny_model(family), DCFTConfig(kernel_size=5, scale=2.0, **settings))
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return save_adapter(trained(), tmp_path / "adapter.safetensors", base_name="tiny/bert")


def test_loaded_adapter_gives_the_same_outputs_in_a_fresh_process(
    adapter: Path, tmp_path: Path
) -> None:
    code = f"""
import torch
from dcft_cli import load_adapter
from tests.families import tiny_model, tokens
model = load_adapter(tiny_model(), {str(adapter)!r})
torch.save(model(**tokens()).logits, {str(tmp_path / "logits")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    logits = torch.load(tmp_path / "logits", weights_only=True)
    assert torch.equal(logits, trained()(**tokens()).logits)


def test_loading_restores_settings_roles_head_and_what_is_trained(adapter: Path) -> None:
    model, original = load_adapter(tiny_model(), adapter.parent), trained()
    assert model(**tokens()).logits.equal(original(**tokens()).logits)
    assert head_parameters(model).keys() == head_parameters(original).keys()
    for name, layer in adapter_layers(original).items():
        loaded = adapter_layers(model)[name]
        assert (loaded.target.role, loaded.config.scale) == (layer.target.role, 2.0)
        assert loaded.A.requires_grad and not loaded.target.matrix.parameter.requires_grad
    with pytest.raises(TargetError, match="already"):
        load_adapter(model, adapter)


def test_the_same_adapter_gives_the_same_bytes(adapter: Path, tmp_path: Path) -> None:
    again = save_adapter(trained(), tmp_path / "again.safetensors", base_name="tiny/bert")
    assert again.read_bytes() == adapter.read_bytes()


def test_file_is_an_ordinary_safetensors_file(adapter: Path) -> None:
    tensors = load_file(adapter)
    assert {name.split(".")[0] for name in tensors} == {"adapter", "head"}
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


def test_a_file_in_bfloat16_has_the_rounded_values(adapter: Path, tmp_path: Path) -> None:
    model = trained()
    path = save_adapter(model, tmp_path / "half.safetensors", dtype=torch.bfloat16)
    assert all(tensor.dtype == torch.bfloat16 for tensor in load_file(path).values())
    loaded = load_adapter(tiny_model(), path)
    exact = dict(model.named_parameters())
    for name, parameter in loaded.named_parameters():
        if parameter.requires_grad:
            assert parameter.equal(exact[name].bfloat16().float())
            assert not parameter.equal(exact[name])
    again = save_adapter(loaded, tmp_path / "again.safetensors", dtype=torch.bfloat16)
    assert again.read_bytes() == path.read_bytes()


def test_other_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float16"):
        save_adapter(trained(), tmp_path / "a.safetensors", dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_wrong_base(adapter: Path) -> None:
    other = tiny_model()
    nn.init.normal_(other.bert.encoder.layer[0].output.dense.weight)
    with pytest.raises(AdapterFileError, match="trained on other base weights: tiny/bert"):
        load_adapter(other, adapter)
    load_adapter(other, adapter, check_base=False)
    with pytest.raises(AdapterFileError, match="does not fit this model"):
        load_adapter(tiny_model("roberta"), adapter)
    with pytest.raises(AdapterFileError, match=r"classifier\.weight of shape \(2, 16\)"):
        load_adapter(tiny_model(num_labels=3), adapter)


def test_a_failed_write_leaves_the_old_file(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = adapter.read_bytes()

    def full_disk(self: Path, data: bytes) -> int:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="space"):
        save_adapter(trained(), adapter)
    assert adapter.read_bytes() == before
    assert [p.name for p in adapter.parent.iterdir()] == [adapter.name]


def test_saving_a_model_without_adapters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no DCFT adapters"):
        save_adapter(tiny_model(), tmp_path / "a.safetensors")


# Other places than whole linear layers


def test_slices_stacks_and_raw_weights_come_back(tmp_path: Path) -> None:
    for model_type in ("modernbert", "gpt_bigcode", "xlnet", "gpt_oss", "squeezebert"):
        model = adapt(any_tiny_model(model_type), "Q", "V", "FFN_IN")
        path = save_adapter(model, tmp_path / f"{model_type}.safetensors")
        loaded = load_adapter(any_tiny_model(model_type), path)
        assert adapter_layers(loaded).keys() == adapter_layers(model).keys()
        for name, layer in adapter_layers(model).items():
            found = adapter_layers(loaded)[name]
            assert (found.target.role, found.rows) == (layer.target.role, layer.rows)
            assert all(getattr(found, f).equal(getattr(layer, f)) for f in "ABC")
        again = save_adapter(loaded, tmp_path / "again.safetensors")
        assert again.read_bytes() == path.read_bytes()


def resized(change: str) -> nn.Module:
    """A model like the one that an adapter was trained on, but for one size."""
    model = nn.ModuleDict({"attn": Fused(), "mlp": SmallExperts()})
    if change == "narrower":
        model["attn"].qkv = linear(15, 6)
    elif change == "deeper":
        model["attn"].qkv = linear(18, 8)
    elif change == "fewer":
        model["mlp"].up_proj = nn.Parameter(torch.zeros(2, 10, 6))
    elif change == "larger":
        model["mlp"].up_proj = nn.Parameter(torch.zeros(3, 12, 6))
    elif change == "no stack":
        model["mlp"].up_proj = nn.Parameter(torch.zeros(10, 6))
    elif change == "apart":
        model["attn"] = nn.ModuleDict({"q_proj": linear(6, 6), "v_proj": linear(6, 6)})
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("narrower", r"attn\.qkv\.V of shape 6 x 6 \(rows 12 to 17\), the model has 15 x 6"),
        ("deeper", r"attn\.qkv\.Q of shape 6 x 6 \(rows 0 to 5\), the model has 18 x 8"),
        ("fewer", r"mlp\.up_proj of shape 3 x 10 x 6, the model has 2 x 10 x 6"),
        ("larger", r"mlp\.up_proj of shape 3 x 10 x 6, the model has 3 x 12 x 6"),
        ("no stack", r"mlp\.up_proj of shape 3 x 10 x 6, the model has 10 x 6"),
        ("apart", r"attn\.qkv\.weight, which the model does not have"),
    ],
)
def test_a_model_of_other_sizes_is_refused(change: str, message: str, tmp_path: Path) -> None:
    path = save_adapter(adapt(resized("nothing"), "Q", "V", "mlp.up_proj"), tmp_path)
    assert adapter_layers(load_adapter(resized("nothing"), path, check_base=False))
    model = resized(change)
    with pytest.raises(AdapterFileError, match=f"does not fit this model.*{message}"):
        load_adapter(model, path, check_base=False)
    assert not adapter_layers(model)
