"""The task head's last linear layer, fitted on the frozen encoder's outputs before training.

A fresh head is noise: its gradient says little about what the encoder should change, and it takes
the head a good part of a short run to say more. Fitting one linear layer to outputs that are
computed once is a convex problem, solved in seconds.

It is regularized, by the dropout that it will be trained with: for inputs x, dropout at rate p
adds p / (1 - p) * sum of w_j^2 E[x_j^2] to a squared loss (Wager, Wang and Liang 2013,
arXiv 1307.1493). So the penalty on a weight is in proportion to E[x_j^2], and its strength is
chosen on a part of the rows that is held out.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.models.loading import head_outputs

Batch = Mapping[str, Tensor]
Targets = Mapping[str, Tensor]

_PENALTIES = (3e-2, 1e-1, 3e-1, 1.0, 3.0)
_HELD_OUT = 0.2
_MAX_NUMBERS = 2**26  # of inputs kept, 256 MiB
_MAX_EXAMPLES = 2**14  # a sentence has one for every word
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
        weight, bias: of the fit, (outputs, in) and (outputs,); None: the layer has no bias.
        mean: of its inputs, (in,); zero where the layer has no bias.
        examples: that it was fitted on.
        penalty: L2 penalty that was best on the held-out part.
    """

    name: str
    layer: nn.Linear
    weight: Tensor
    bias: Tensor | None
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
        if self.bias is not None:
            self.layer.bias.copy_(self.bias + (1 - share) * self.weight @ self.mean)
        self.layer.weight.copy_(share * self.weight)

    @contextmanager
    def in_full(self) -> Iterator[None]:
        """Within it, the layer has the weights that were fitted."""
        parameters = list(self.layer.parameters())
        before = [parameter.detach().clone() for parameter in parameters]
        self.scale_down(1.0)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, values in zip(parameters, before, strict=True):
                    parameter.copy_(values)


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
        `nn.Linear`, or are not finite.
    """
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and {f"{name}.{own}" for own, _ in module.named_parameters()} <= set(head)
    }
    calls: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str) -> Callable[[Any, tuple[Tensor, ...], Tensor], None]:
        return lambda _, inputs, output: calls.__setitem__(name, (inputs[0], output))

    hooks = [module.register_forward_hook(note(name)) for name, module in linear.items()]
    layer = ""
    features: list[Tensor] = []
    targets: list[dict[str, Tensor]] = []
    numbers = examples = 0
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
            numbers += x.numel()
            examples += len(x)
            if numbers > _MAX_NUMBERS or examples > _MAX_EXAMPLES:
                break
    finally:
        for hook in hooks:
            hook.remove()
    if not features:
        return None
    x = torch.cat(features)
    y = {name: torch.cat([some[name] for some in targets]) for name in targets[0]}
    if not x.isfinite().all():
        return None
    with torch.autocast(x.device.type, enabled=False):
        return _fit(linear[layer], layer, x, y, problem)


def _inputs_of(
    call: tuple[Tensor, Tensor], outputs: list[Tensor], mask: Tensor | None
) -> Tensor | None:
    """The inputs from which a layer made the model's outputs; None where it did not make them."""
    inputs, made = call
    if len(outputs) == 2:  # start and end logits
        if made.shape != (*outputs[0].shape, 2):
            return None
        return inputs if torch.equal(torch.stack(outputs, dim=-1), made) else None
    (logits,) = outputs
    if made.shape == logits.shape and torch.equal(made, logits):
        return inputs
    if made.dim() == 3 and logits.shape == (len(made), made.shape[-1]):
        # A decoder labels every token, and takes the answer of the last one that is no padding; a
        # decoder behind an encoder may take the one after it.
        same = (made == logits.unsqueeze(1)).all(-1)
        real = same if mask is None or mask.shape != same.shape else same & mask.bool()
        chosen = torch.where(real.any(-1, keepdim=True), real, same)
        if chosen.any(-1).all():
            return inputs[torch.arange(len(made), device=made.device), _last(chosen)]
    return None


def _last(chosen: Tensor) -> Tensor:
    """Place of the last true value in every row of (rows, places)."""
    return chosen.shape[1] - 1 - chosen.flip(1).int().argmax(1)


def _fit(
    layer: nn.Linear, name: str, x: Tensor, y: dict[str, Tensor], problem: LinearProblem
) -> FittedHead:
    prior = problem.logits.to(x)
    # What a bias holds: the prior, and the mean of the inputs.
    center = torch.zeros_like(prior) if layer.bias is None else prior
    spread = problem.spread or 1.0
    if problem.spread is not None:
        y = {key: (value - center) / spread for key, value in y.items()}
    start = center if problem.spread is None else torch.zeros_like(prior)
    offset = center - spread * start
    flat = x.flatten(0, -2)
    flat = flat[flat.any(-1)]  # no padding
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
    full = [None if p is None else p.detach().clone() for p in (layer.weight, layer.bias)]
    assert full[0] is not None
    return FittedHead(name, layer, full[0], full[1], mean, len(x), penalty)
