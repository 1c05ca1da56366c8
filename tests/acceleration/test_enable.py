"""Switching acceleration on and off: what it leaves unchanged, and what it computes."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from dcft_cli import DCFTConfig, adapter_layers, inject, load_adapter, merged, save_adapter
from dcft_cli.acceleration import disable, enable, onednn
from tests.acceleration.both_ways import assert_same_both_ways
from tests.architectures.tiny import example
from tests.architectures.tiny import tiny_model as any_tiny_model
from tests.families import tiny_model, tokens
from tests.small import adapt, perturb

FAMILIES = ["bert", "deberta-v2", "gpt2", "modernbert", "t5", "xlnet", "mixtral", "squeezebert"]


def everything(model: nn.Module) -> list[object]:
    modules = [(n, id(m), type(m), set(vars(m))) for n, m in model.named_modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return [modules, hooks, [(n, id(p)) for n, p in model.named_parameters()]]


@pytest.fixture
def always_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch is built without oneDNN")
    monkeypatch.setattr(onednn, "is_faster", lambda: True)
    monkeypatch.setattr(onednn, "MIN_FLOPS", 1)


@pytest.mark.usefixtures("always_onednn")
@pytest.mark.parametrize("model_type", FAMILIES)
def test_nothing_is_left_of_it(model_type: str) -> None:
    model = adapt(any_tiny_model(model_type), "*")
    before = everything(model)
    names = [name for name, _ in model.named_parameters()]
    enable(model)
    assert everything(model) != before
    assert [name for name, _ in model.named_parameters()] == names
    enable(model)  # twice is once
    disable(model)
    assert everything(model) == before


@pytest.mark.usefixtures("always_onednn")
def test_mode_and_weights_that_change_meanwhile_are_kept() -> None:
    model = adapt(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), "0").train()
    enable(model)
    model.eval()
    model[1].weight = nn.Parameter(torch.zeros(8, 8), requires_grad=False)
    disable(model)
    assert not any(module.training for module in model.modules())
    assert not model[1].weight.any()


@pytest.mark.usefixtures("always_onednn")
@pytest.mark.parametrize("targets", [("Q", "V"), ("Q", "K", "V", "O", "FFN")])
def test_frozen_and_adapted_layers_by_onednn(targets: tuple[str, ...]) -> None:
    model = adapt(tiny_model(), *targets).eval()
    on = assert_same_both_ways(model, lambda m: m(**tokens()).logits, rtol=1e-3, atol=1e-4)
    assert on == ["layers", "factors", "products"]


@pytest.mark.usefixtures("always_onednn")
def test_evaluation_with_merged_weights() -> None:
    model = adapt(tiny_model(), "Q", "FFN").eval()
    with torch.no_grad():
        expected = model(**tokens()).logits
        enable(model)
        with merged(model):
            torch.testing.assert_close(model(**tokens()).logits, expected, rtol=1e-4, atol=1e-4)


def test_adapters_are_saved_and_loaded_as_without_it(tmp_path: object) -> None:
    model = adapt(tiny_model(), "Q", "FFN").eval()
    plain = save_adapter(model, tmp_path / "plain.safetensors").read_bytes()
    enable(model)
    path = save_adapter(model, tmp_path / "fast.safetensors")
    assert path.read_bytes() == plain
    loaded = load_adapter(tiny_model(), path).eval()
    torch.testing.assert_close(loaded(**tokens()).logits, model(**tokens()).logits)


def test_a_copy_computes_with_its_own_adapters() -> None:
    model = adapt(any_tiny_model("deberta-v2"), "Q", "FFN").eval()
    inputs = example("deberta-v2", model.config)
    enable(model)
    expected = model(**inputs).logits
    other = copy.deepcopy(model)
    assert torch.equal(other(**inputs).logits, expected)
    for adapter in adapter_layers(other).values():
        adapter.C.data.zero_()
    assert not torch.equal(other(**inputs).logits, expected)
    assert torch.equal(model(**inputs).logits, expected)


def test_compiled_in_one_graph_it_is_the_plain_model() -> None:
    layers = [nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 16)]
    model = perturb(inject(nn.Sequential(*layers), DCFTConfig(kernel_size=4, targets=["*"])))
    x = torch.randn(5, 16)
    expected = model(x)
    enable(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)


def test_two_processes_compute_the_same_bits() -> None:
    code = """
import hashlib, torch
from torch import nn
from dcft_cli import DCFTConfig, inject
from dcft_cli.acceleration import enable
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(384, 1536), nn.GELU(), nn.Linear(1536, 384))
inject(model, DCFTConfig(targets=["*"], init="normal"))
enable(model)
output = model(torch.randn(512, 384))
output.square().sum().backward()
tensors = [output.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
print(hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest())
"""
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout != ""
