"""What tests of methods share: a method in a model, away from its start."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.methods.build import build
from dcft_cli.methods.lowrank import lowrank_layers
from dcft_cli.methods.method import Method
from dcft_cli.recipe import AdapterSection
from dcft_cli.targets.head import find_parts, outside_encoder
from tests.architectures.tiny import tiny_model as tiny_architecture
from tests.families import FAMILIES, tiny_model, tokens


def attach(
    name: str, model: nn.Module, *, seed: int = 1, total_steps: int | None = None, **settings: Any
) -> Method:
    """Attach a method as a run does: the head is what lies outside the encoder."""
    section = AdapterSection(method=name, **settings)
    parts = find_parts(model, section.targets, head=outside_encoder(model), dense="full")
    method = build(section, seed=seed, total_steps=total_steps)
    method.attach(model, parts)
    return method


def model_of(family: str) -> nn.Module:
    """Return a tiny random model of any family, in evaluation mode."""
    return tiny_model(family) if family in FAMILIES else tiny_architecture(family)


@torch.no_grad()
def perturb(method: Method, std: float = 0.3) -> Method:
    """Draw every trained parameter of a method from a distribution wide enough to matter."""
    generator = torch.Generator().manual_seed(2)
    for parameter in method.parameters().values():
        nn.init.normal_(parameter, std=std, generator=generator)
    return method


@torch.no_grad()
def logits(model: nn.Module, **inputs: Tensor) -> Tensor:
    output: Tensor = model(**(inputs or tokens(99, batch=6))).logits
    return output


def assert_merges(method: Method, plain: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Merging gives the modules of the plain model, and the outputs of the attached one."""
    model = method.model
    expected = logits(model, **inputs)
    assert (expected - logits(plain, **inputs)).abs().max() > 1e-3
    method.merge()
    assert [(n, type(m)) for n, m in model.named_modules()] == [
        (n, type(m)) for n, m in plain.named_modules()
    ]
    torch.testing.assert_close(logits(model, **inputs), expected, atol=1e-12, rtol=0)


def gradients(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, bool]:
    """Whether the gradient of each parameter that has one is other than zero."""
    model.zero_grad()
    model(**inputs).logits.square().sum().backward()
    return {n: bool(p.grad.any()) for n, p in model.named_parameters() if p.grad is not None}


def nola_digest(seed: int) -> str:
    """Hash every A and B of NOLA in a model, with coefficients away from their start."""
    model = tiny_model("deberta-v2")
    perturb(attach("nola", model, seed=seed, bases=5, rank=3))
    factors = [factor.detach() for layer in lowrank_layers(model) for factor in layer.factors()]
    return hashlib.sha256(b"".join(factor.numpy().tobytes() for factor in factors)).hexdigest()
