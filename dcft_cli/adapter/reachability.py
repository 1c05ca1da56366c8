"""Which adapters the loss depends on: one that it does not depend on would learn nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.adapter.adapter import DCFTAdapter

Loss = Callable[[Any, Mapping[str, Any]], Tensor]
"""The loss of a model's outputs for the inputs of its forward pass."""


def find_reached(
    model: nn.Module, adapters: Sequence[DCFTAdapter], inputs: Mapping[str, Any]
) -> list[bool | None]:
    """Run one forward and one backward pass and return which adapters get a gradient.

    Args:
        model, adapters: a model and the adapters in it.
        inputs: of its forward pass; with labels the model's own loss is used, else the sum of
            the squares of its outputs.

    Returns:
        For each adapter True, False (its gradient is zero) or None (it is not in the graph).
    """
    # Reversible layers (Reformer's) run their own backward pass, in training mode only.
    reversible = any(hasattr(module, "backward_pass") for module in model.modules())
    modes = {module: module.training for module in model.modules()}
    try:
        model.train(reversible)
        with untouched_gradients(model):
            loss = loss_of(model, inputs)
            if not loss.requires_grad:  # no adapter in the graph, and no task head
                return [None] * len(adapters)
            # Not autograd.grad: reversible layers only fill in `grad`.
            loss.backward()  # type: ignore[no-untyped-call]
            # Only C: where dW starts at zero, A and B have no gradient yet.
            gradients = [adapter.C.grad for adapter in adapters]
            return [None if g is None else bool(g.any()) for g in gradients]
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def untouched_gradients(model: nn.Module) -> Iterator[None]:
    """Start without gradients; restore them, `requires_grad` and the random state at the end."""
    device = next(model.parameters()).device
    before = {p: (p.requires_grad, p.grad) for p in model.parameters()}
    for parameter in before:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for parameter, (required, gradient) in before.items():
            if parameter.requires_grad != required:
                parameter.requires_grad_(required)
            parameter.grad = gradient


def loss_of(model: nn.Module, inputs: Mapping[str, Any], loss: Loss | None = None) -> Tensor:
    """Compute the loss of a batch.

    Args:
        loss: of outputs and inputs; None: the model's own, or where it has none, the sum of the
            squares of its outputs.
    """
    device = next(model.parameters()).device
    moved = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in inputs.items()}
    with torch.enable_grad(), _mixed_precision(model, device):
        outputs = model(**moved)
        if loss is not None:
            return loss(outputs, moved)
    own = getattr(outputs, "loss", None)
    if isinstance(own, Tensor):
        return own
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    tensors = [values] if isinstance(values, Tensor) else list(values)
    squares = [t.float().square().sum() for t in tensors if isinstance(t, Tensor)]
    return torch.stack(squares).sum()


def _mixed_precision(model: nn.Module, device: torch.device) -> AbstractContextManager[Any]:
    """Return autocast if the types of parameters are mixed; the pass fails without it."""
    types = {p.dtype for p in model.parameters()}
    half = types & {torch.bfloat16, torch.float16}
    mixed = half and half < types
    return torch.autocast(device.type, dtype=half.pop()) if mixed else nullcontext()
