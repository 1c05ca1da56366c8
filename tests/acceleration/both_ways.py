"""Run a model with plain layers and with acceleration, and compare."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dcft_cli.acceleration import disable, enable


def outputs_and_gradients(
    model: nn.Module, call: Callable[[nn.Module], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The output of `call` and the gradients of a weighted sum of it."""
    model.zero_grad()
    output = call(model)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device)
    (output * weights.view_as(output)).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return output.detach(), gradients


def assert_same_both_ways(
    model: nn.Module, call: Callable[[nn.Module], Tensor], **tolerance: float
) -> list[str]:
    """Return what was switched on; gradients are compared relative to their largest value."""
    tolerance = tolerance or {"rtol": 1e-9, "atol": 1e-9}
    disable(model)
    plain = outputs_and_gradients(model, call)
    chosen = enable(model)
    try:
        fast = outputs_and_gradients(model, call)
    finally:
        disable(model)
    torch.testing.assert_close(fast[0], plain[0], **tolerance)
    assert fast[1].keys() == plain[1].keys()
    for name, expected in plain[1].items():
        size = expected.abs().max().clamp_min(1e-6)
        torch.testing.assert_close(fast[1][name] / size, expected / size, **tolerance, msg=name)
    return chosen
