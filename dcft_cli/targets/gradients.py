"""Gradients of a model that leave the model as it is."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.errors import TargetError
from dcft_cli.targets.weights import Matrix

# Methods of transformers' models, and what is set on a model where the first one was called.
_ENABLE, _DISABLE = "enable_input_require_grads", "disable_input_require_grads"
_INPUT_GRADIENTS = "_dcft_input_gradients"

Loss = Callable[[Any, Mapping[str, Any]], Tensor]
"""The loss of a model's outputs for the inputs of its forward pass."""


def weight_gradients(
    model: nn.Module,
    weights: Sequence[Matrix],
    batches: Iterable[Mapping[str, Any]],
    loss: Loss | None = None,
) -> list[Tensor | None]:
    """Compute the gradient of the loss with respect to weights of a model, frozen ones too.

    Args:
        model, weights: a model and the ones of its weights to look at.
        batches: keyword arguments of the forward pass, labels included.
        loss: of the model's outputs and a batch; None: the model's own.

    Returns:
        For each weight dL/dW (..., out, in), summed over the batches; None: no gradient.
    """
    # Autograd has no gradient for packed weights: it is computed from x and dL/dy.
    products: dict[int, Tensor] = {}
    packed = {id(weight.parameter) for weight in weights if weight.is_quantized}
    hooks = [
        module.register_forward_hook(_add_outer_product(products, id(parameter)))
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
        if id(parameter) in packed
    ]
    try:
        with untouched_gradients(model):
            for weight in weights:
                if not weight.is_quantized:
                    weight.parameter.requires_grad_(True)
            for batch in batches:
                value = loss_of(model, batch, loss)
                if value.requires_grad:
                    value.backward()  # type: ignore[no-untyped-call]
            found = [products.get(id(w.parameter), w.parameter.grad) for w in weights]
        return [
            None if gradient is None else weight.as_matrix(gradient)
            for weight, gradient in zip(weights, found, strict=True)
        ]
    finally:
        for hook in hooks:
            hook.remove()


def _add_outer_product(
    sums: dict[int, Tensor], key: int
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """Return a forward hook that adds a linear layer's dL/dW = (dL/dy)^T x to `sums[key]`."""

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0].detach()

        def add(gradient: Tensor) -> None:
            product = gradient.flatten(0, -2).float().mT @ x.flatten(0, -2).float()
            sums[key] = sums[key] + product if key in sums else product

        # Below the first layer nothing may need a gradient.
        output.requires_grad_(True).register_hook(add)  # type: ignore[no-untyped-call]

    return hook


def find_reached(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    inputs: Mapping[str, Any],
    loss: Loss | None = None,
) -> list[bool | None]:
    """Run one forward and one backward pass and return which parameters get a gradient.

    Args:
        model, parameters: a model and the ones of its parameters to look at.
        inputs: of its forward pass.
        loss: of outputs and inputs; None: the model's own, or, without labels, the sum of the
            squares of its outputs.

    Returns:
        For each parameter True, False (its gradient is zero) or None (it is not in the graph).
    """
    # Reversible layers (Reformer's) run their own backward pass, in training mode only.
    reversible = any(hasattr(module, "backward_pass") for module in model.modules())
    modes = {module: module.training for module in model.modules()}
    try:
        model.train(reversible)
        with untouched_gradients(model):
            value = loss_of(model, inputs, loss)
            if not value.requires_grad:  # nothing that is trained is in the graph
                return [None] * len(parameters)
            # Not autograd.grad: reversible layers only fill in `grad`.
            value.backward()  # type: ignore[no-untyped-call]
            return [None if p.grad is None else bool(p.grad.any()) for p in parameters]
    finally:
        for module, mode in modes.items():
            module.training = mode


def find_unreached(
    model: nn.Module,
    layers: Sequence[Sequence[nn.Parameter]],
    inputs: Mapping[str, Any],
    loss: Loss | None = None,
) -> list[bool]:
    """Return for each layer whether the loss depends on none of its parameters.

    Where nothing has a gradient because the inputs of a model need none, they get one, until
    `reset_input_gradients`.

    Args:
        model, inputs, loss: as for `find_reached`.
        layers: the trained parameters of each layer.

    Returns:
        False for all if none has a gradient, as with a task head that starts at zero: the pass
        then tells nothing.

    Raises:
        TargetError: no parameter is in the graph of the loss.
    """
    parameters = [parameter for layer in layers for parameter in layer]
    found = find_reached(model, parameters, inputs, loss)
    if all(reached is None for reached in found) and hasattr(model, _ENABLE):
        # Reversible layers (Reformer's) run a backward pass only where their input needs one.
        getattr(model, _ENABLE)()
        setattr(model, _INPUT_GRADIENTS, True)
        found = find_reached(model, parameters, inputs, loss)
    if all(reached is None for reached in found):
        raise TargetError(
            f"No adapter of {type(model).__name__} receives a gradient from the loss.",
            "Does its forward pass run without gradients?",
        )
    if not any(found):
        return [False] * len(layers)
    reached = {id(p) for p, is_reached in zip(parameters, found, strict=True) if is_reached}
    return [reached.isdisjoint(map(id, layer)) for layer in layers]


def reset_input_gradients(model: nn.Module) -> None:
    """Undo what `find_unreached` did to the inputs of a model, if anything."""
    if model.__dict__.pop(_INPUT_GRADIENTS, False):
        getattr(model, _DISABLE)()


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
