"""Inputs computed again in the backward pass, and hooks: of autograd and of modules."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dcft_cli.adapter import activations
from dcft_cli.adapter.activations import Origin
from tests.adapter.recomputed import (
    assert_same,
    counted,
    gradients,
    inputs,
    network,
    plain_gradients,
)


def test_inputs_that_autograd_does_not_keep_are_kept_as_ever() -> None:
    """As in a checkpoint, or where saved tensors are moved to another place."""
    model, x = network(nn.GELU()), inputs()
    found: list[Origin | None] = []
    with (
        counted(found),
        torch.autograd.graph.saved_tensors_hooks(Tensor.clone, lambda tensor: tensor),
    ):
        y = model(x)
    assert found == [None, None, None]
    assert_same(gradients(y, model, x), plain_gradients(model, x))


def test_a_torch_that_does_not_tell_where_tensors_are_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(activations, "_saving", None)  # as before 2.8
    model, x = network(nn.GELU()), inputs()
    found: list[Origin | None] = []
    with counted(found):
        y = model(x)
    assert found == [None, None, None]
    assert_same(gradients(y, model, x), plain_gradients(model, x))


def test_a_checkpoint_whose_inputs_are_moved_under_autocast() -> None:
    model, x = network(nn.GELU(), torch.float32), inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients(model(model.norm(x)), model, x)
        with torch.autograd.graph.save_on_cpu():
            y = checkpoint(model, model.norm(x), use_reentrant=False)
    for one, other in zip(gradients(y, model, x), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)


def thrice(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
    return 3 * output if isinstance(module, nn.GELU) else None


def test_an_output_that_an_earlier_hook_gives() -> None:
    activation = nn.GELU()
    activation.register_forward_hook(thrice)
    model, x = network(activation), inputs()
    assert_same(gradients(model(x), model, x), plain_gradients(model, x))


def test_an_output_that_a_hook_of_all_modules_gives() -> None:
    model, x = network(nn.GELU()), inputs()
    handle = torch.nn.modules.module.register_module_forward_hook(thrice)
    try:
        assert_same(gradients(model(x), model, x), plain_gradients(model, x))
    finally:
        handle.remove()
