"""Fitting the last layer of the task head."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcft_cli.targets.head import outside_encoder
from dcft_cli.training.head import LinearProblem, fit_head
from tests.architectures.tiny import tiny_model as any_tiny_model
from tests.families import FAMILIES, tiny_model, tokens


def classes(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, (rows,), generator=generator)


def batches(count: int = 4, rows: int = 8) -> list[dict[str, Tensor]]:
    return [{**tokens(seed, batch=rows), "labels": classes(rows, seed)} for seed in range(count)]


CLASSES = LinearProblem(
    examples=lambda features, batch: (features, {"labels": batch["labels"]}),
    loss=lambda logits, targets: F.cross_entropy(logits, targets["labels"]),
    logits=torch.zeros(2),
    spread=None,
)
NUMBERS = replace(CLASSES, loss=lambda logits, targets: F.mse_loss(logits[:, 0], targets["labels"]))


def loss_of(model: nn.Module, given: list[dict[str, Tensor]]) -> float:
    with torch.no_grad():
        return torch.stack([model(**batch).loss for batch in given]).mean().item()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fit_lowers_the_loss_and_changes_the_last_layer_only(family: str) -> None:
    model, given = tiny_model(family), batches()
    before = {name: p.clone() for name, p in model.named_parameters()}
    at_first = loss_of(model, given)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    fitted = fit_head(model, outside_encoder(model), given, CLASSES)
    assert len(calls) == len(given)  # one pass
    assert fitted is not None
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    (name,) = (name for name, module in model.named_modules() if module is fitted.layer)
    assert changed == {f"{name}.weight", f"{name}.bias"}
    assert loss_of(model, given) < min(at_first, 0.6931)


def test_the_fit_minimizes_the_penalized_loss() -> None:
    """No step away from it lowers cross-entropy plus penalty, in units of the features' size."""
    model, given = tiny_model(), batches()
    fitted = fit_head(model, outside_encoder(model), given, CLASSES)
    assert fitted is not None
    with torch.no_grad():
        features = torch.cat([model.bert(**inputs_of(batch)).pooler_output for batch in given])
    labels = torch.cat([batch["labels"] for batch in given])
    size = features.square().mean(0).sqrt()

    def objective(weight: Tensor, bias: Tensor) -> Tensor:
        loss = F.cross_entropy(features @ weight.mT + bias, labels)
        return loss + fitted.penalty / 2 * (weight * size).square().sum()

    weight, bias = (p.detach().clone().requires_grad_() for p in fitted.layer.parameters())
    objective(weight, bias).backward()
    assert weight.grad.abs().max() < 1e-4 and bias.grad.abs().max() < 1e-4


def inputs_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if name != "labels"}


def test_a_fitted_regression_has_the_mean_and_spread_of_its_targets() -> None:
    model = tiny_model(num_labels=1, problem_type="regression")
    given = batches(8)
    with torch.no_grad():
        for batch in given:  # predictable from the features
            feature = model.bert(**inputs_of(batch)).pooler_output[:, 0]
            batch["labels"] = 250 + 5_000 * feature
    targets = torch.cat([batch["labels"] for batch in given])
    mean, spread = targets.mean(0, keepdim=True), targets.std().item()
    problem = replace(NUMBERS, logits=mean, spread=spread)
    assert fit_head(model, outside_encoder(model), given, problem) is not None
    with torch.no_grad():
        outputs = torch.cat([model(**inputs_of(batch)).logits[:, 0] for batch in given])
    assert outputs.mean().item() == pytest.approx(targets.mean().item(), rel=0.02)
    assert F.mse_loss(outputs, targets) < 0.3 * targets.var()


def test_scaling_keeps_the_mean_of_the_outputs() -> None:
    model, given = tiny_model(), batches()
    fitted = fit_head(model, outside_encoder(model), given, CLASSES)
    assert fitted is not None

    def outputs() -> Tensor:
        with torch.no_grad():
            return torch.cat([model(**inputs_of(batch)).logits for batch in given])

    before = outputs()
    fitted.scale(0.25)
    after = outputs()
    torch.testing.assert_close(after.mean(0), before.mean(0), rtol=0, atol=1e-4)
    torch.testing.assert_close(after - after.mean(0), (before - before.mean(0)) / 4)
    fitted.scale(1.0)
    assert torch.equal(outputs(), before)


def test_a_decoder_is_fitted_on_the_token_that_it_classifies_by() -> None:
    model = any_tiny_model("gpt2", "AutoModelForSequenceClassification").eval()
    model.config.pad_token_id = 0
    model.score = nn.Linear(model.score.in_features, 2, bias=False)
    model.num_labels = model.config.num_labels = 2
    given = batches()
    at_first = loss_of(model, given)
    assert fit_head(model, {"score.weight"}, given, CLASSES) is not None
    assert loss_of(model, given) < at_first


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_layer_without_a_bias_is_fitted_without_one(outputs: int) -> None:
    """Most rows of one class, and targets far from zero."""
    model = any_tiny_model("gpt2", "AutoModelForSequenceClassification").eval()
    model.config.pad_token_id, model.config.problem_type = 0, None
    model.score = nn.Linear(model.score.in_features, outputs, bias=False)
    model.num_labels = model.config.num_labels = outputs
    given = batches(8)
    for rare, batch in enumerate(given):
        batch["labels"] = torch.tensor([int(rare > 0 or row > 2) for row in range(8)])
        if outputs == 1:
            batch["labels"] = 100 + batch["labels"].float()
    if outputs == 1:
        problem = replace(NUMBERS, logits=torch.tensor([100.9]), spread=0.3)
    else:
        problem = replace(CLASSES, logits=torch.tensor([0.05, 0.95]).log())
    assert fit_head(model, {"score.weight"}, given, problem)
    assert loss_of(model, given) < (0.3 if outputs == 2 else 0.5 * 100.9**2)


def test_only_trained_linear_layers_are_fitted() -> None:
    model, given = tiny_model(), batches()
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert fit_head(model, (), given, CLASSES) is None  # a head that is frozen
    assert fit_head(model, {"bert.pooler.dense.weight"}, given, CLASSES) is None
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_features_that_are_not_finite_leave_the_head_unchanged() -> None:
    model, given = tiny_model(), batches()
    before = model.classifier.weight.clone()
    model.bert.pooler.dense.bias.data[0] = torch.nan
    assert fit_head(model, outside_encoder(model), given, CLASSES) is None
    assert torch.equal(model.classifier.weight, before)
