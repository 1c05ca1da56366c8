"""The factors of all layers, made together: the same as each by itself, and never out of date."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dcft_cli import DCFTConfig, inject
from dcft_cli.acceleration import batched_factors, enable, lowrank_linear
from dcft_cli.acceleration.batched_factors import make_factors
from dcft_cli.adapter.adapter import DCFTAdapter
from tests.acceleration.both_ways import assert_same_both_ways, outputs_and_gradients
from tests.families import save_base
from tests.jobs import recipe, train
from tests.small import adapt, delta_of, perturb

SIZES = st.integers(1, 20)


def network() -> nn.Module:
    layers = [nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 12)]
    model = inject(nn.Sequential(*layers), DCFTConfig(kernel_size=4, targets=["*"]))
    enable(perturb(model).double())
    return model


def inputs() -> Tensor:
    return torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def assert_first_is_up_to_date(model: nn.Module) -> None:
    layer, x = model[0], inputs()
    expected = layer.base(x) + x @ delta_of(layer.adapters[0]).mT
    torch.testing.assert_close(layer(x), expected)


@settings(deadline=None)
@given(out=SIZES, into=SIZES, d=st.integers(1, 5), data=st.data())
def test_factors_and_their_gradients(out: int, into: int, d: int, data: st.DataObject) -> None:
    stride, rank = data.draw(st.integers(1, d)), data.draw(st.integers(1, 2))
    config = DCFTConfig(kernel_size=d, stride=stride, rank=rank, scale=2.0, init="normal")
    adapters = [DCFTAdapter(into, out, config).double() for _ in range(2)]
    for adapter, factors in zip(adapters, make_factors(adapters, torch.float64), strict=True):
        torch.testing.assert_close(factors.up_t.mT @ factors.down, delta_of(adapter))
        seeds = torch.randn_like(factors.down), torch.randn_like(factors.up_t)
        parameters = [adapter.A, adapter.B, adapter.C]
        down, up = adapter()
        expected = torch.autograd.grad((down, up.mT), parameters, seeds)
        found = torch.autograd.grad(tuple(factors), parameters, seeds, retain_graph=True)
        for gradient, reference in zip(found, expected, strict=True):
            torch.testing.assert_close(gradient, reference)


@pytest.mark.parametrize("autocast", [False, True])
def test_made_once_for_all_layers_of_a_shape(
    autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where `forward` itself switches autocast on, as accelerate has it."""
    sizes = []

    def counting(group: list[DCFTAdapter], dtype: torch.dtype) -> object:
        sizes.append(len(group))
        return make_factors(group, dtype)

    for module in (batched_factors, lowrank_linear):
        monkeypatch.setattr(module, "make_factors", counting)
    model = network()
    if autocast:
        model.float().forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
        model(inputs().float())
    else:
        model(inputs())
    assert sorted(sizes) == [1, 2]


def test_a_part_called_by_itself_is_up_to_date() -> None:
    """Even after changes that torch cannot see, between a pass of the whole and one of a part."""
    model = network()
    before = model(inputs())
    model[0].adapters[0].C.data.mul_(2)
    assert_first_is_up_to_date(model)
    assert not torch.equal(model(inputs()), before)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_inside_the_model(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))

        def forward(self, x: Tensor) -> Tensor:
            for part in self.parts:
                x = checkpoint(part, x, use_reentrant=reentrant)
            return x

    model = perturb(inject(Checkpointed(), DCFTConfig(kernel_size=4, targets=["*"]))).double()
    x = inputs().requires_grad_()
    assert_same_both_ways(model, lambda model: model(x))


def test_with_and_without_gradients_in_one_pass() -> None:
    """A part that runs without gradients leaves the others theirs."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.first(x)
            return self.second(x)

    model = adapt(Half(), "*").double()
    _, plain = outputs_and_gradients(model, lambda model: model(inputs()))
    enable(model)
    _, fast = outputs_and_gradients(model, lambda model: model(inputs()))
    for name, gradient in fast.items():
        torch.testing.assert_close(gradient, plain.get(name, torch.zeros_like(gradient)))
    assert plain.keys() <= fast.keys()


def test_a_pass_that_fails_leaves_nothing_out_of_date() -> None:
    model = network()

    def fail(module: nn.Module, inputs: object) -> None:
        raise ValueError

    handle = model[3].register_forward_pre_hook(fail)
    with pytest.raises(ValueError):
        model(inputs())
    handle.remove()
    with torch.no_grad():
        model[0].adapters[0].C.add_(1)
    assert_first_is_up_to_date(model)


def test_a_model_that_calls_itself() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor, again: bool = True) -> Tensor:
            x = self.layer(x)
            return self(x, False) if again else x

    model = perturb(inject(Twice(), DCFTConfig(kernel_size=4, targets=["*"]))).double()
    assert_same_both_ways(copy.deepcopy(model), lambda model: model(inputs()))


def test_no_layer_makes_its_own_in_a_run_with_mixed_precision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = []

    def counting(group: list[DCFTAdapter], dtype: torch.dtype) -> object:
        sizes.append(len(group))
        return make_factors(group, dtype)

    monkeypatch.setattr(lowrank_linear, "make_factors", counting)
    settings = ("training.precision=bfloat16", "adapter.init=zero", "training.fit_head=off")
    job = train(recipe("stsb", tmp_path, save_base(tmp_path / "base"), *settings), tmp_path / "run")
    assert "factors" in job.metrics["acceleration"]
    assert sizes == []
