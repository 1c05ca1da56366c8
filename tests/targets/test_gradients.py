"""Gradients of frozen weights are autograd's, and the model stays as it is."""

import torch

from dcft_cli.targets.gradients import weight_gradients
from dcft_cli.targets.resolve import find_targets
from tests.families import tiny_model, tokens

BATCHES = [{**tokens(), "labels": torch.tensor([label, 1, 0])} for label in (0, 1)]


def test_gradients_of_frozen_weights_are_summed_over_the_batches() -> None:
    frozen, trained = tiny_model().eval(), tiny_model().eval()
    frozen.requires_grad_(False)
    weights = [target.matrix for target in find_targets(frozen, ["Q", "FFN"])]
    found = weight_gradients(frozen, weights, BATCHES)
    for batch in BATCHES:
        trained(**batch).loss.backward()
    assert weights
    for weight, gradient in zip(weights, found, strict=True):
        expected = trained.get_parameter(weight.parameter_name).grad
        assert gradient is not None and expected is not None and expected.any()
        torch.testing.assert_close(gradient, expected)
    assert not any(p.requires_grad or p.grad is not None for p in frozen.parameters())


def test_a_weight_that_the_loss_does_not_reach_has_none() -> None:
    model = tiny_model()
    weights = [target.matrix for target in find_targets(model, ["Q"])]
    found = weight_gradients(model, weights, BATCHES, lambda outputs, batch: torch.zeros(()))
    assert found == [None] * len(weights)
