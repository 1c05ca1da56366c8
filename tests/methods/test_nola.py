"""NOLA: its formula, and that a seed is enough to make its matrices again."""

import math
import subprocess
import sys

import torch
from torch import Tensor, nn

from dcft_cli.methods.nola import CombinedLinear
from dcft_cli.methods.seeded import SeededUniform
from tests.families import tiny_model, tokens
from tests.methods.attached import attach, gradients, nola_digest, perturb

CPU = torch.device("cpu")


def layers_of(model: nn.Module) -> list[CombinedLinear]:
    return [module for module in model.modules() if isinstance(module, CombinedLinear)]


def test_formula() -> None:
    model = tiny_model()
    base = model.bert.encoder.layer[0].intermediate.dense
    perturb(attach("nola", model, bases=5, rank=3, scale=0.5))
    model.double()
    layer = model.bert.encoder.layer[0].intermediate.dense
    A_i = layer.bases_a.on(CPU).double().view(5, 3, 16)
    B_j = layer.bases_b.on(CPU).double().view(5, 36, 3)
    A = layer.start.on(CPU).double() + sum(layer.a[i] * A_i[i] for i in range(5))
    B = sum(layer.b[j] * B_j[j] for j in range(5))
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    torch.testing.assert_close(layer(x), base(x) + 0.5 * x @ A.T @ B.T)
    assert A_i.abs().max() <= 1 / math.sqrt(5) and B_j.abs().max() <= 1 / math.sqrt(5)
    assert layer.start.on(CPU).abs().max() <= 1 / math.sqrt(16)


def test_only_b_has_a_gradient_at_first() -> None:
    model = tiny_model()
    method = attach("nola", model, bases=5)
    found = gradients(model, tokens())
    assert {name: found[name] for name in method.parameters()} == {
        name: name.endswith(".b") for name in method.parameters()
    }


def test_gradients_of_coefficients_are_products_with_the_bases() -> None:
    model = tiny_model()
    perturb(attach("nola", model, bases=5, rank=3))
    layer = layers_of(model)[0]
    A, B = layer.factors()
    A.retain_grad(), B.retain_grad()
    (A.sin().sum() * B.cos().sum()).backward()
    torch.testing.assert_close(layer.a.grad, layer.bases_a.on(CPU) @ A.grad.flatten())
    torch.testing.assert_close(layer.b.grad, layer.bases_b.on(CPU) @ B.grad.flatten())


def test_what_is_kept_is_two_times_k_numbers_a_layer() -> None:
    model = tiny_model()
    method = attach("nola", model, bases=5, rank=7)
    shapes = [tuple(parameter.shape) for parameter in method.parameters().values()]
    assert shapes == [(5,)] * (2 * 12)
    assert method.trained_parameters() == 2 * 5 * 12
    # Neither the state nor the buffers of the model hold the random matrices.
    assert sum(v.numel() for n, v in model.state_dict().items() if ".base." not in n) < 3_000 + sum(
        p.numel() for p in tiny_model().parameters()
    )


def test_layers_of_equal_size_share_their_bases() -> None:
    model = tiny_model()
    attach("nola", model, bases=5, rank=3)
    layers = layers_of(model)
    drawn = {id(b): b for layer in layers for b in (layer.bases_a, layer.bases_b)}
    assert sorted(b.shape for b in drawn.values()) == [(5, 48), (5, 48), (5, 108), (5, 108)]
    for layer in layers:
        layer.factors()
    held = sum(b.on(CPU).nbytes for b in drawn.values())
    assert held == 4 * 5 * 3 * (16 + 16 + 36 + 36)
    assert len({layer.start.on(CPU).sum().item() for layer in layers}) == len(layers)


def test_a_fresh_process_makes_the_same_matrices() -> None:
    code = "from tests.methods.attached import nola_digest; print(nola_digest(7))"
    fresh = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert fresh == nola_digest(7)
    assert fresh != nola_digest(8)


def test_values_drawn_from_a_seed_never_change() -> None:
    # Adapter files depend on these: should they change, old files mean something else.
    drawn = SeededUniform((7, 1, 16), (2, 3), 0.5).on(CPU)
    assert drawn.tolist() == [
        [-0.012318170629441738, 0.4590500593185425, -0.050314657390117645],
        [-0.3662935495376587, 0.2087358832359314, -0.2557632625102997],
    ]


def test_drawn_values_are_uniform_and_do_not_touch_other_streams() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    drawn = SeededUniform((0,), (100, 1000), 2.0).on(CPU)
    assert torch.equal(torch.rand(3), expected)
    assert drawn.abs().max() <= 2 and drawn.mean().abs() < 0.02
    torch.testing.assert_close(drawn.var().item(), 4 / 3, rtol=0.02, atol=0)


def test_matrices_drawn_for_predictions_serve_training() -> None:
    model = tiny_model()
    perturb(attach("nola", model, bases=5))
    with torch.inference_mode():
        model(**tokens())
    assert all(gradients(model, tokens()).values())


def test_bases_stay_in_full_precision_in_a_mixed_one() -> None:
    model = tiny_model()
    perturb(attach("nola", model, bases=5))
    layer = layers_of(model)[0]
    plain = [factor.detach() for factor in layer.factors()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed: list[Tensor] = [factor.detach() for factor in layer.factors()]
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))
