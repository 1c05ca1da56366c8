"""The task head's last linear layer, fitted on the frozen encoder's outputs before training.

A random head is noise: its gradient hardly tells how the encoder should change, and learning the
head takes a good part of a short run. Fitting one linear layer to features that are computed once
is a convex problem, solved in seconds.

The fit is regularized like the dropout of training: for inputs x, dropout at rate p adds
p / (1 - p) * sum of w_j^2 E[x_j^2] to a squared loss (Wager, Wang and Liang 2013, arXiv
1307.1493). So the penalty on a weight is proportional to E[x_j^2]; its strength is chosen on
held-out rows.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.models.loading import head_outputs
from dcft_cli.targets.head import head_layers

Batch = Mapping[str, Tensor]
Targets = Mapping[str, Tensor]

_PENALTIES = (3e-2, 1e-1, 3e-1, 1.0, 3.0)
_HELD_OUT = 0.2
_MAX_NUMEL = 2**26  # of the inputs: 256 MiB
_MAX_EXAMPLES = 2**14  # a sentence has one per word
_MAX_STEPS = 100  # of L-BFGS


@dataclass(frozen=True)
class LinearProblem:
    """The convex problem of fitting a task's last linear layer.

    Attributes:
        examples, loss: `Task.linear_examples` and `Task.linear_loss`.
        logits: initial outputs, (outputs,): those of the constant prediction.
        spread: standard deviation of regression targets, which are then standardized; None for
            classes.
    """

    examples: Callable[[Tensor, Batch], tuple[Tensor, dict[str, Tensor]]]
    loss: Callable[[Tensor, Targets], Tensor]
    logits: Tensor
    spread: float | None


@dataclass(frozen=True)
class FittedHead:
    """A fitted last layer.

    Attributes:
        weight, bias: of the fit, (outputs, in) and (outputs,); bias is None if the layer has none.
        mean: of the layer's inputs, (in,); zero if the layer has no bias.
        penalty: the L2 penalty that was best on the held-out part.
    """

    layer: nn.Linear
    weight: Tensor
    bias: Tensor | None
    mean: Tensor
    penalty: float

    @torch.no_grad()
    def scale(self, share: float) -> None:
        """Set the layer to `share` times the fitted weight, with the same mean of the outputs.

        With the full fit, outputs are close to their targets, so features change little in
        training, which generalizes worse. With a fraction of the fitted weight, the encoder has
        to move its features along the fitted direction (Ren et al. 2023, "How to prepare your
        task head for finetuning", ICLR).
        """
        if self.bias is not None:
            self.layer.bias.copy_(self.bias + (1 - share) * self.weight @ self.mean)
        self.layer.weight.copy_(share * self.weight)


@torch.no_grad()
def fit_head(
    model: nn.Module, head: Collection[str], batches: Iterable[Batch], problem: LinearProblem
) -> FittedHead | None:
    """Fit the last linear layer of a model's task head in place.

    Takes one forward pass over the batches, without gradients; call `model.eval()` first.

    Args:
        head: names of the trained parameters outside the encoder.
        batches: inputs and targets on the model's device; a few thousand rows are enough.

    Returns:
        None, with the head unchanged, if the model's outputs are not those of a trained
        `nn.Linear`, or are not finite.
    """
    linear = head_layers(model, head)
    calls: dict[str, tuple[Tensor, Tensor]] = {}

    def record(name: str) -> Callable[[Any, tuple[Tensor, ...], Tensor], None]:
        return lambda _, inputs, output: calls.__setitem__(name, (inputs[0], output))

    hooks = [module.register_forward_hook(record(name)) for name, module in linear.items()]
    layer = ""
    features: list[Tensor] = []
    targets: list[dict[str, Tensor]] = []
    examples, limit = 0, _MAX_EXAMPLES
    try:
        for batch in batches:
            calls.clear()
            outputs = head_outputs(model(**batch))
            mask = batch.get("attention_mask")
            found = {name: _inputs_of(call, outputs, mask) for name, call in calls.items()}
            layer, inputs = next(((n, x) for n, x in found.items() if x is not None), ("", None))
            if inputs is None:
                return None
            x, y = problem.examples(inputs.float(), batch)
            features.append(x)
            targets.append(y)
            examples += len(x)
            limit = min(limit, max(1, _MAX_NUMEL // x[0].numel())) if len(x) else limit
            if examples >= limit:
                break
    finally:
        for hook in hooks:
            hook.remove()
    if not features:
        return None
    # Cut, so that the examples do not depend on the size of the batches.
    x = torch.cat(features)[:limit]
    y = {name: torch.cat([batch[name] for batch in targets])[:limit] for name in targets[0]}
    if not x.isfinite().all():
        return None
    with torch.autocast(x.device.type, enabled=False):
        return _fit(linear[layer], x, y, problem)


def _inputs_of(
    call: tuple[Tensor, Tensor], outputs: list[Tensor], mask: Tensor | None
) -> Tensor | None:
    """Return the inputs of the layer that computed the model's outputs; None if it did not."""
    inputs, output = call
    if len(outputs) == 2:  # start and end logits
        if output.shape != (*outputs[0].shape, 2):
            return None
        return inputs if torch.equal(torch.stack(outputs, dim=-1), output) else None
    (logits,) = outputs
    if output.shape == logits.shape and torch.equal(output, logits):
        return inputs
    if output.dim() == 3 and logits.shape == (len(output), output.shape[-1]):
        # A decoder computes logits for every token and returns those of the last one that is not
        # padding; an encoder-decoder may return those of the token after it.
        same = (output == logits.unsqueeze(1)).all(-1)
        real = same if mask is None or mask.shape != same.shape else same & mask.bool()
        chosen = torch.where(real.any(-1, keepdim=True), real, same)
        if chosen.any(-1).all():
            last = chosen.shape[1] - 1 - chosen.flip(1).int().argmax(1)
            return inputs[torch.arange(len(output), device=output.device), last]
    return None


def _fit(layer: nn.Linear, x: Tensor, y: Targets, problem: LinearProblem) -> FittedHead:
    """Fit a layer in place to all examples, with the penalty that is best on held-out ones."""
    prior = problem.logits.to(x)
    # Only a bias can account for the prior and for the mean of the inputs.
    center = torch.zeros_like(prior) if layer.bias is None else prior
    spread = problem.spread or 1.0
    if problem.spread is not None:
        y = {key: (value - center) / spread for key, value in y.items()}
    start = center if problem.spread is None else torch.zeros_like(prior)
    flat = x.flatten(0, -2)
    flat = flat[flat.any(-1)]  # without padding
    root_mean_square = flat.square().mean(0).sqrt().clamp_min(1e-6)
    mean = flat.mean(0) if layer.bias is not None else torch.zeros_like(root_mean_square)
    x = (x - mean) / root_mean_square
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)
    cut = round(_HELD_OUT * len(x))
    fitted = order[cut:]
    held_out = order[:cut] if cut else fitted

    def solve(rows: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        own = {key: value[rows] for key, value in y.items()}
        return _solve(x[rows], own, start, problem.loss, penalty, bias=layer.bias is not None)

    def loss_of(penalty: float) -> float:
        weight, bias = solve(fitted, penalty)
        own = {key: value[held_out] for key, value in y.items()}
        return problem.loss(x[held_out] @ weight.mT + bias, own).item()

    penalty = min(_PENALTIES, key=loss_of)
    weight, bias = solve(order, penalty)
    weight = weight / root_mean_square
    layer.weight.copy_(spread * weight)
    full_bias = None
    if layer.bias is not None:
        layer.bias.copy_(spread * (bias - weight @ mean) + (center - spread * start))
        full_bias = layer.bias.detach().clone()
    return FittedHead(layer, layer.weight.detach().clone(), full_bias, mean, penalty)


def _solve(
    x: Tensor,
    y: Targets,
    start: Tensor,
    loss: Callable[[Tensor, Targets], Tensor],
    penalty: float,
    *,
    bias: bool,
) -> tuple[Tensor, Tensor]:
    """Return weight and bias with the lowest loss plus penalty / 2 * |weight|^2, by L-BFGS.

    Args:
        start: of the bias, (outputs,); without `bias` it stays.
    """
    weight = x.new_zeros(len(start), x.shape[-1]).requires_grad_()
    offset = start.clone().requires_grad_(bias)
    optimizer = torch.optim.LBFGS(
        [weight, offset] if bias else [weight],
        max_iter=_MAX_STEPS,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(x @ weight.mT + offset, y) + penalty / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), offset.detach()
