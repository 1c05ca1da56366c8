"""The task head's last linear layer, fitted on the frozen encoder's outputs before training.

A fresh head is noise: its gradient says little about what the encoder should change, and it takes
the head a good part of a short run to say more. Fitting one linear layer to outputs that are
computed once is a convex problem, solved in seconds.

It is regularized, by the dropout that it will be trained with: for inputs x, dropout at rate p
adds p / (1 - p) * sum of w_j^2 E[x_j^2] to a squared loss (Wager, Wang and Liang 2013,
arXiv 1307.1493). So the penalty on a weight is in proportion to E[x_j^2], and its strength is
chosen on a part of the rows that is held out.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.models import head_outputs

Batch = Mapping[str, Tensor]
Targets = Mapping[str, Tensor]

_PENALTIES = (3e-2, 1e-1, 3e-1, 1.0, 3.0)
_HELD_OUT = 0.2
_MAX_NUMBERS = 2**24  # of inputs kept, 64 MiB
_MAX_STEPS = 100  # of L-BFGS


@dataclass(frozen=True)
class LinearProblem:
    """What a task says of its last linear layer.

    Attributes:
        examples: `Task.linear_examples`.
        loss: `Task.linear_loss`.
        logits: where the fit starts, (outputs,): the prior's.
        spread: standard deviation of a regression's targets, which are then standardized; None
            for classes.
    """

    examples: Callable[[Tensor, Batch], tuple[Tensor, dict[str, Tensor]]]
    loss: Callable[[Tensor, Targets], Tensor]
    logits: Tensor
    spread: float | None


@dataclass(frozen=True)
class FittedHead:
    """A last layer that was fitted.

    Attributes:
        name: of the layer in the model.
        layer: itself.
        mean: of its inputs, (in,); zero where the layer has no bias.
        examples: that it was fitted on.
        penalty: L2 penalty that was best on the held-out part.
    """

    name: str
    layer: nn.Linear
    mean: Tensor
    examples: int
    penalty: float

    @torch.no_grad()
    def scale_down(self, share: float) -> None:
        """Multiply the weight by `share`; the mean of the outputs stays.

        A head that is fitted in full leaves the encoder little to do: outputs are near their
        targets, and small changes of features are enough, which generalize worse than large ones.
        A head of the fitted direction, but of a fraction of its size, has the encoder move its
        features along that direction (Ren et al. 2023, "How to prepare your task head for
        finetuning", ICLR).
        """
        if self.layer.bias is not None:
            self.layer.bias.add_((1 - share) * self.layer.weight @ self.mean)
        self.layer.weight.mul_(share)


@torch.no_grad()
def fit_head(
    model: nn.Module, head: Collection[str], batches: Iterable[Batch], problem: LinearProblem
) -> FittedHead | None:
    """Fit the last linear layer of a model's task head in place.

    Takes one forward pass over the batches, without gradients, in the mode that the model is in
    (call `model.eval()` first).

    Args:
        head: names of the trained parameters outside the encoder.
        batches: inputs and targets on the model's device; a few thousand rows are enough.

    Returns:
        None, with the head as it was, where the model's outputs are not those of a trained
        `nn.Linear`.
    """
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" in head
    }
    calls: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str) -> Callable[[Any, tuple[Tensor, ...], Tensor], None]:
        return lambda _, inputs, output: calls.__setitem__(name, (inputs[0], output))

    hooks = [module.register_forward_hook(note(name)) for name, module in linear.items()]
    layer = ""
    features: list[Tensor] = []
    targets: list[dict[str, Tensor]] = []
    held = 0
    try:
        for batch in batches:
            calls.clear()
            outputs = head_outputs(model(**batch))
            found = {name: _inputs_of(call, outputs) for name, call in calls.items()}
            layer, inputs = next(((n, x) for n, x in found.items() if x is not None), ("", None))
            if inputs is None:
                return None
            x, y = problem.examples(inputs.float(), batch)
            features.append(x)
            targets.append(y)
            held += x.numel()
            if held > _MAX_NUMBERS:
                break
    finally:
        for hook in hooks:
            hook.remove()
    if not features:
        return None
    x = torch.cat(features)
    y = {name: torch.cat([some[name] for some in targets]) for name in targets[0]}
    return _fit(linear[layer], layer, x, y, problem)


def _inputs_of(call: tuple[Tensor, Tensor], outputs: list[Tensor]) -> Tensor | None:
    """The inputs from which a layer made the model's outputs; None where it did not make them."""
    inputs, made = call
    if len(outputs) == 2:  # start and end logits
        same = made.shape == (*outputs[0].shape, 2) and all(
            torch.equal(one, column) for one, column in zip(outputs, made.unbind(-1), strict=True)
        )
        return inputs if same else None
    (logits,) = outputs
    if made.shape == logits.shape and torch.equal(made, logits):
        return inputs
    if made.dim() == 3 and logits.shape == (len(made), made.shape[-1]):
        # A decoder labels every token, and takes the last one's answer.
        chosen = (made == logits.unsqueeze(1)).all(-1)
        if chosen.any(-1).all():
            return inputs[torch.arange(len(made), device=made.device), chosen.int().argmax(-1)]
    return None


def _fit(
    layer: nn.Linear, name: str, x: Tensor, y: dict[str, Tensor], problem: LinearProblem
) -> FittedHead:
    spread, prior = problem.spread, problem.logits.to(x)
    start, offset = (prior, 0.0) if spread is None else (torch.zeros_like(prior), prior)
    spread = spread or 1.0
    y = {key: (value - offset) / spread if offset is prior else value for key, value in y.items()}
    flat = x.flatten(0, -2)
    root_mean_square = flat.square().mean(0).sqrt().clamp_min(1e-6)
    mean = flat.mean(0) if layer.bias is not None else torch.zeros_like(root_mean_square)
    x = (x - mean) / root_mean_square
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(x), generator=generator).to(x.device)
    cut = round(_HELD_OUT * len(x))
    held_out, fitted = order[:cut], order[cut:]

    def solve(rows: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        weight = x.new_zeros(layer.out_features, layer.in_features).requires_grad_()
        bias = start.clone().requires_grad_(layer.bias is not None)
        some, wanted = x[rows], {key: value[rows] for key, value in y.items()}
        optimizer = torch.optim.LBFGS(
            [p for p in (weight, bias) if p.requires_grad],
            max_iter=_MAX_STEPS,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = problem.loss(some @ weight.mT + bias, wanted)
            loss = loss + penalty / 2 * weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]
        return weight.detach(), bias.detach()

    def loss_of(rows: Tensor, penalty: float) -> float:
        weight, bias = solve(fitted, penalty)
        wanted = {key: value[rows] for key, value in y.items()}
        return problem.loss(x[rows] @ weight.mT + bias, wanted).item()

    rows = held_out if len(held_out) else fitted
    losses = {penalty: loss_of(rows, penalty) for penalty in _PENALTIES}
    penalty = min(losses, key=losses.__getitem__)
    weight, bias = solve(order, penalty)
    weight = weight / root_mean_square
    layer.weight.copy_(spread * weight)
    if layer.bias is not None:
        layer.bias.copy_(spread * (bias - weight @ mean) + offset)
    return FittedHead(name, layer, mean, len(x), penalty)
