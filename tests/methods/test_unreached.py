"""Layers that the loss does not depend on: no method trains, counts or stores anything there."""

from pathlib import Path

import pytest
import torch

from dcft_cli.adapter_file.read import read_contents
from dcft_cli.methods.adalora import AdaLoRA
from dcft_cli.methods.build import build
from dcft_cli.methods.load import load_method
from dcft_cli.recipe import AdapterSection
from dcft_cli.recipe.methods import METHODS
from dcft_cli.targets.head import find_parts, outside_encoder
from tests.architectures.tiny import example, tiny_model
from tests.methods.attached import logits, perturb

ON_LAYERS = [name for name, method in METHODS.items() if "targets" in method.keys]
SMALL = {"rank": 3, "bases": 4, "factor": 4}
# The class depends on the first token only, which attends through projections of its own.
LAST = "longformer.encoder.layer.1.attention.self"
LEFT_OUT = [f"{LAST}.{own}" for own in ("query", "key", "value")]


@pytest.mark.parametrize("name", ON_LAYERS)
def test_a_layer_without_effect_gets_nothing(name: str, tmp_path: Path) -> None:
    keys = METHODS[name].keys
    section = AdapterSection(method=name, **{k: v for k, v in SMALL.items() if k in keys})
    model, plain = tiny_model("longformer"), tiny_model("longformer")
    method = build(section, seed=1, total_steps=20)
    method.attach(
        model, find_parts(model, section.targets, head=outside_encoder(model), dense="full")
    )
    before = method.trained_parameters()
    inputs = example("longformer", model.config)
    assert method.remove_unreached(inputs) == LEFT_OUT
    assert method.trained_parameters() < before
    assert not any(own.startswith(f"{n}.") for own in method.parameters() for n in LEFT_OUT)
    assert not any(p.requires_grad for n in LEFT_OUT for p in model.get_submodule(n).parameters())
    if isinstance(method, AdaLoRA):
        assert method.wrapper.base_model.rankallocator.target_bgt == 3 * len(method.layers)
    torch.testing.assert_close(logits(model, **inputs), logits(plain, **inputs), rtol=0, atol=1e-5)
    perturb(method, std=0.1)
    base = {"name": None, "revision": None, "fingerprint": "sha256:" + 64 * "0"}
    method.save(tmp_path / "adapter.safetensors", base=base, info={})
    contents = read_contents(tmp_path / "adapter.safetensors")
    assert contents.adapter_parameters == method.trained_parameters()
    load_method(plain, contents, check_base=False)
    assert torch.equal(logits(plain, **inputs), logits(model, **inputs))
