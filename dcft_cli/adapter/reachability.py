"""Which adapters a model's forward pass reaches: one that it never reads would learn nothing."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.adapter.adapter import DCFTAdapter


def reach(
    model: nn.Module, adapters: Sequence[DCFTAdapter], inputs: Mapping[str, Any]
) -> list[bool | None]:
    """Whether the loss depends on each adapter; None where none of its shape was in the graph.

    One forward and one backward pass, in evaluation mode where the model allows it; parameters,
    their gradients and the random state stay as they are.

    Args:
        model, adapters: a model and the adapters in it.
        inputs: of its forward pass; with labels the model's own loss is taken, else the squares
            of its outputs.
    """
    try:
        return _reach(model, adapters, inputs, training=False)
    except AssertionError:  # Reformer goes backward in training mode alone
        return _reach(model, adapters, inputs, training=True)


def _reach(
    model: nn.Module, adapters: Sequence[DCFTAdapter], inputs: Mapping[str, Any], *, training: bool
) -> list[bool | None]:
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    gradients = {p: p.grad for p in model.parameters() if p.requires_grad}
    model.train(training)
    try:
        for parameter in gradients:
            parameter.grad = None
        with (
            torch.enable_grad(),
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            mixed_precision(model, device),
        ):
            outputs = model(**moved(inputs, device))
        loss = loss_of(outputs)
        if not loss.requires_grad:  # no adapter in the graph, and no task head
            return [None] * len(adapters)
        # Not autograd.grad: layers that go backward by themselves fill in `grad` alone.
        loss.backward()  # type: ignore[no-untyped-call]
        # C alone: where dW starts at zero, A and B have no gradient yet.
        found = [adapter.C.grad for adapter in adapters]
        return [None if gradient is None else bool(gradient.any()) for gradient in found]
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


def loss_of(outputs: Any) -> Tensor:
    """The model's own loss; where it gives none, the sum of the squares of its outputs."""
    found = getattr(outputs, "loss", None)
    if isinstance(found, Tensor):
        return found
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    tensors = [values] if isinstance(values, Tensor) else list(values)
    squares = [t.float().square().sum() for t in tensors if isinstance(t, Tensor)]
    return torch.stack(squares).sum()


def mixed_precision(model: nn.Module, device: torch.device) -> AbstractContextManager[Any]:
    """A half-precision encoder with a float32 head runs under autocast alone."""
    types = {p.dtype for p in model.parameters()}
    half = types & {torch.bfloat16, torch.float16}
    mixed = half and half < types
    return torch.autocast(device.type, dtype=half.pop()) if mixed else nullcontext()


def moved(inputs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Inputs of a forward pass, on the device."""
    return {n: v.to(device) if isinstance(v, Tensor) else v for n, v in inputs.items()}
