"""Inputs computed again in the backward pass: the same gradients, and nothing kept besides."""

import copy
import functools
import gc
import io
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN

from dcft_cli import DCFTConfig, inject, merge, remove_adapters
from dcft_cli.adapter.activations import Origin
from tests.adapter.recomputed import (
    assert_same,
    counted,
    gradients,
    inputs,
    kept,
    network,
    plain_gradients,
)
from tests.small import perturb

KEEPING = ["gelu", "gelu_pytorch_tanh", "silu", "swish", "mish", "hardswish"]
OTHERS = ["relu", "tanh", "gelu_new", "quick_gelu"]


@pytest.mark.parametrize("name", KEEPING)
def test_computed_again_with_the_same_gradients(name: str) -> None:
    model, x = network(ACT2FN[name]), inputs()
    found: list[Origin | None] = []
    with counted(found):
        y = model(x)
    assert [one is not None for one in found] == [False, True, True]
    found.clear()
    assert_same(gradients(y, model, x), plain_gradients(model, x))
    expected = merge(copy.deepcopy(model))(x)
    torch.testing.assert_close(y, expected)
    (to_x,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(gradients(model(x), model, x)[-1], to_x, rtol=1e-4, atol=1e-4)


def test_small_inputs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcft_cli.adapter.activations._WORTH", 2**19)
    model, x = network(nn.GELU()), inputs()
    found: list[Origin | None] = []
    with counted(found):
        model(x)
    assert found == [None] * 3


@pytest.mark.parametrize("name", OTHERS)
def test_activations_that_keep_something_else_are_left_alone(name: str) -> None:
    model, x = network(ACT2FN[name]), inputs()
    found: list[Origin | None] = []
    with counted(found):
        model(x)
    assert [one is not None for one in found] == [False, False, True]


def test_functions_are_no_modules() -> None:
    model, x = network(nn.functional.gelu), inputs()
    found: list[Origin | None] = []
    with counted(found):
        y = model(x)
    assert [one is not None for one in found] == [False, False, True]
    assert_same(gradients(y, model, x), plain_gradients(model, x))


def test_gradcheck() -> None:
    model, x = network(nn.GELU()), inputs()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def run(*tensors: Tensor) -> Tensor:
        y: Tensor = functional_call(model, dict(zip(trained, tensors, strict=False)), tensors[-1])
        return y

    assert torch.autograd.gradcheck(run, (*trained.values(), x), atol=1e-4)


def stored(model: nn.Module, x: Tensor) -> int:
    """Bytes of all that a forward pass keeps, each storage once."""
    y = model(x)
    storages, seen, todo = {}, set(), [y.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
        names = [name for name in dir(node) if name.startswith("_saved_")]
        for one in (*getattr(node, "saved_tensors", ()), *(getattr(node, n) for n in names)):
            if isinstance(one, Tensor):
                storages[one.untyped_storage().data_ptr()] = one.untyped_storage()
    return sum(storage.nbytes() for storage in storages.values())


def test_nothing_of_the_inputs_size_is_kept() -> None:
    model, x = network(nn.GELU(), torch.float32), torch.randn(400, 8).requires_grad_()
    frozen = remove_adapters(copy.deepcopy(model)).requires_grad_(False)
    thin = 3 * 400 * 4 * 4  # A' x of three layers, four columns each
    first = x.nbytes  # the input of the first layer comes from nowhere
    constants = 3000
    assert stored(model, x) <= stored(frozen, x) + first + thin + constants
    with kept():
        assert stored(model, x) >= stored(frozen, x) + first + thin + 400 * 20 * 4


def test_the_output_is_freed() -> None:
    model, x = network(nn.GELU()), inputs()
    outputs = []
    model.activation.register_forward_hook(
        lambda module, inputs, output: outputs.append(weakref.ref(output))
    )
    gc.disable()
    try:
        y = model(x)
        assert outputs[0]() is None
    finally:
        gc.enable()
    y.sum().backward()


@pytest.mark.parametrize("change", ["output", "input"])
def test_a_change_in_place_is_seen(change: str) -> None:
    """Autograd itself refuses an input that has been changed."""
    model, x = network(nn.GELU()), inputs()

    def scale(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if change == "output":
            output.mul_(2)
        else:
            with torch.no_grad():
                inputs[0].mul_(2)

    model.activation.register_forward_hook(scale)
    found: list[Origin | None] = []
    with counted(found):
        y = model(x)
    assert found[1] is None or found[1].h is None
    if change == "output":
        assert_same(gradients(y, model, x), plain_gradients(model, x))
    else:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            gradients(y, model, x)


@pytest.mark.parametrize("module", [nn.SiLU(inplace=True), nn.Dropout(0.5)])
def test_other_outputs_than_the_activations(module: nn.Module) -> None:
    """In place, or dropped out after it."""
    parts = [module] if isinstance(module, nn.SiLU) else [nn.GELU(), module]
    model, x = network(nn.Sequential(*parts)), inputs()
    found: list[Origin | None] = []
    with counted(found):
        torch.manual_seed(3)
        y = model(x)
    assert found[1] is None
    torch.manual_seed(3)
    assert_same(gradients(y, model, x), plain_gradients(model, x))


def test_a_norm_that_learns_is_left_alone() -> None:
    model, x = network(nn.GELU()), inputs()
    model.norm.requires_grad_()
    found: list[Origin | None] = []
    with counted(found):
        model(x)
    assert [one is not None for one in found] == [False, True, False]


def test_forms_of_ones_own_are_left_alone() -> None:
    class FirstDimension(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mT).mT

    class Network(nn.Module):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.norm, self.last = norm, nn.Linear(8, 12)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.norm(x))
            return y

    replaced = nn.LayerNorm(8)
    replaced.forward = lambda x: x.cumsum(1)
    config = DCFTConfig(kernel_size=4, targets=["last"])
    for norm in (FirstDimension(3), nn.LayerNorm((3, 8)), replaced):
        model = perturb(inject(Network(norm), config, head=())).double()
        x = inputs()
        assert_same(gradients(model(x), model, x), plain_gradients(model, x))


def test_without_gradients_nothing_is_remembered() -> None:
    model, x = network(nn.GELU()), inputs()
    found: list[Origin | None] = []
    with counted(found), torch.no_grad():
        model(x)
    with counted(found), torch.inference_mode():
        model(x)
    assert found == [None] * 6


@pytest.mark.parametrize("part", ["whole", "down"])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_checkpoints(part: str, reentrant: bool, on_cpu: bool) -> None:
    model, x = network(nn.GELU()), inputs()
    expected = plain_gradients(model, x)
    again = functools.partial(checkpoint, use_reentrant=reentrant)
    hooks = torch.autograd.graph.save_on_cpu() if on_cpu else torch.no_grad()
    trained = [p for p in model.parameters() if p.requires_grad]
    with hooks, torch.enable_grad():
        if part == "whole":
            y = again(model, x)
        else:
            model.down.forward = functools.partial(again, model.down.forward)
            y = model(x)
        y.float().square().sum().backward()
    assert_same([*(p.grad for p in trained), x.grad], expected)


def test_backward_twice_and_where_tensors_are_saved_elsewhere() -> None:
    model, x = network(nn.GELU()), inputs()
    expected = plain_gradients(model, x)
    with torch.autograd.graph.save_on_cpu():
        y = model(x)
    loss = y.float().square().sum()
    trained = [p for p in model.parameters() if p.requires_grad]
    for _ in range(2):
        assert_same(list(torch.autograd.grad(loss, [*trained, x], retain_graph=True)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision(dtype: torch.dtype, autocast: bool) -> None:
    model, x = network(nn.GELU(), dtype), inputs(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found: list[Origin | None] = []
        with counted(found):
            y = model(x)
        with kept():
            plain = model(x)
    assert [one is not None for one in found[:2]] == [False, True]
    for one, other in zip(gradients(y, model, x), gradients(plain, model, x), strict=True):
        assert torch.equal(one, other)


def test_copies_of_the_model_and_files_of_an_output() -> None:
    model, x = network(nn.GELU()), inputs()
    expected = plain_gradients(model, x)
    outputs = []
    model.activation.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    model(x)
    file = io.BytesIO()
    torch.save(outputs[0], file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=True), outputs[0])
    model = network(nn.GELU())
    other = copy.deepcopy(model)
    found: list[Origin | None] = []
    with counted(found):
        y = other(x)
    assert sum(one is not None for one in found) == 2
    assert_same(gradients(y, other, x), expected)


@pytest.mark.parametrize("undo", [merge, remove_adapters])
def test_nothing_is_left_without_adapters(undo: Callable[[nn.Module], nn.Module]) -> None:
    model = undo(copy.deepcopy(network(nn.GELU())))
    assert not any(module._forward_hooks for module in model.modules())
