"""The factors of all layers, made together: the same as each by itself, and never out of date."""

import copy
import gc
import io
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dcft_cli import DCFTConfig, adapter_layers, inject, merge, remove_adapters
from dcft_cli.acceleration import batched_factors as made
from dcft_cli.acceleration.batched_factors import factors
from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.targets.weights import find_matrices
from tests.small import increment_of, linear, perturb

SIZES = st.integers(1, 20)


def adapters(count: int, out: int, into: int, **settings: object) -> list[DCFTAdapter]:
    config = DCFTConfig(targets=["*"], **settings)
    layers = nn.ModuleList(linear(out, into) for _ in range(count))
    found = nn.ModuleList(
        DCFTAdapter(matrix.name, "", config, matrix) for matrix in find_matrices(layers)
    )
    return list(perturb(found).double())


def network() -> nn.Module:
    layers = [nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 12)]
    model = inject(nn.Sequential(*layers), DCFTConfig(kernel_size=4, targets=["*"]))
    return perturb(model).double()


def gradients(model: nn.Module) -> list[Tensor]:
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


@settings(deadline=None)
@given(out=SIZES, into=SIZES, d=st.integers(1, 5), data=st.data())
def test_factors_and_their_gradients(out: int, into: int, d: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, d))
    rank = data.draw(st.integers(1, 2))
    ours = adapters(2, out, into, kernel_size=d, stride=stride, rank=rank, scale=2.0)
    for adapter, found in zip(ours, factors(ours, torch.float64), strict=True):
        torch.testing.assert_close(found.up.mT @ found.down, increment_of(adapter))
        seeds = torch.randn_like(found.down), torch.randn_like(found.up)
        parameters = [adapter.A, adapter.B, adapter.C]
        down, up = adapter.low_rank_factors()
        expected = torch.autograd.grad((down, up.mT), parameters, seeds)
        gotten = torch.autograd.grad((found.down, found.up), parameters, seeds, retain_graph=True)
        for one, other in zip(gotten, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_made_once_for_all_layers_of_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def counting(group: list[DCFTAdapter], dtype: torch.dtype) -> object:
        sizes.append(len(group))
        return factors(group, dtype)

    monkeypatch.setattr(made, "factors", counting)
    model = network()
    model(torch.randn(3, 8, dtype=torch.float64))
    assert sorted(sizes) == [1, 2]


def test_a_part_called_by_itself_is_up_to_date() -> None:
    """Even after changes that torch cannot see, between a pass of the whole and one of a part."""
    model, x = network(), torch.randn(3, 8, dtype=torch.float64)
    before = model(x)
    (adapter, *_) = adapter_layers(model).values()
    adapter.C.data.mul_(2)
    layer = adapter.matrix.module
    torch.testing.assert_close(model[0](x), layer(x) + x @ increment_of(adapter).mT)
    assert not torch.equal(model(x), before)


def test_gradients_of_two_passes_before_one_backward() -> None:
    model, x = network(), torch.randn(3, 8, dtype=torch.float64)
    model(x).sum().backward()
    once = gradients(model)
    (model(x).sum() + model(x).sum()).backward()
    for one, twice in zip(once, gradients(model), strict=True):
        torch.testing.assert_close(2 * one, twice)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_inside_the_model(reentrant: bool) -> None:
    model = network()
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    model(x).sum().backward()
    expected = gradients(model)

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = copy.deepcopy(remove_adapters(copy.deepcopy(model)))

        def forward(self, x: Tensor) -> Tensor:
            for part in self.parts:
                x = checkpoint(part, x, use_reentrant=reentrant)
            return x

    again = inject(Checkpointed(), DCFTConfig(kernel_size=4, targets=["*"]))
    theirs = adapter_layers(model).values()
    for ours, other in zip(adapter_layers(again).values(), theirs, strict=True):
        ours.load_state_dict(other.state_dict())
    again.double()(x).sum().backward()
    for one, other in zip(gradients(again), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_with_and_without_gradients_in_one_pass() -> None:
    """A part that is run without gradients leaves the others theirs."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.first(x)
            return self.second(x)

    model = inject(Half(), DCFTConfig(kernel_size=4, targets=["*"], init="normal"), head=())
    model.double()(torch.randn(3, 8, dtype=torch.float64)).sum().backward()
    first, second = adapter_layers(perturb(model)).values()
    assert first.A.grad is not None and not first.A.grad.any()
    assert second.A.grad is not None and second.A.grad.any()


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_a_pass_that_is_stopped_leaves_nothing_out_of_date(stop: type[BaseException]) -> None:
    model, x = network(), torch.randn(3, 8, dtype=torch.float64)

    def fail(module: nn.Module, inputs: object) -> None:
        raise stop

    handle = model[3].register_forward_pre_hook(fail)
    with pytest.raises(stop):
        model(x)
    handle.remove()
    (adapter, *_) = adapter_layers(model).values()
    for _ in range(2):  # a part by itself, trained step by step
        layer = adapter.matrix.module
        torch.testing.assert_close(model[0](x), layer(x) + x @ increment_of(adapter).mT)
        model[0](x).sum().backward()
        with torch.no_grad():
            adapter.C.add_(1)


def test_a_model_is_freed_with_its_last_name() -> None:
    model = network()
    model(torch.randn(3, 8, dtype=torch.float64))
    weight = weakref.ref(model[0].base.weight)
    gc.disable()
    try:
        del model
        assert weight() is None
    finally:
        gc.enable()


def test_a_copied_part_is_a_part() -> None:
    model = network()
    alone, whole = io.BytesIO(), io.BytesIO()
    torch.save(model[0], alone)
    torch.save(model, whole)
    assert len(alone.getvalue()) < len(whole.getvalue()) * 0.6


def test_passes_within_passes() -> None:
    """A model with adapters that calls another one, and itself."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(12, 8)
            self.inner = [network()]  # no module of this one

        def forward(self, x: Tensor, again: bool = True) -> Tensor:
            x = self.last(self.inner[0](self.first(x)))
            return self(x, False) if again else x

    outer = inject(Outer(), DCFTConfig(kernel_size=4, targets=["first", "last"])).double()
    perturb(outer)
    x = torch.randn(3, 8, dtype=torch.float64)
    found = outer(x)
    inner = merge(copy.deepcopy(outer.inner[0]))
    outer.inner = [inner]
    torch.testing.assert_close(found, merge(outer)(x))


def test_copies_keep_to_themselves() -> None:
    model, x = network(), torch.randn(3, 8, dtype=torch.float64)
    expected = model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    # A model as a whole, with its hooks, is code; these bytes were made three lines above.
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        torch.testing.assert_close(other(x), expected)
        for adapter in adapter_layers(other).values():
            adapter.C.data.zero_()
        assert not torch.equal(other(x), expected)
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("undo", [merge, remove_adapters])
def test_nothing_is_left_in_a_model_without_adapters(undo: object) -> None:
    plain = vars(nn.Sequential()).keys()
    model = undo(network())
    assert vars(model).keys() == plain
    assert not model._forward_pre_hooks and not model._forward_hooks
