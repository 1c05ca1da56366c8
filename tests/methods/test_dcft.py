"""DCFT by the protocol of all methods."""

import pytest
from torch import nn

from dcft_cli.adapter.inject import adapter_layers
from dcft_cli.methods.dcft import DCFT
from dcft_cli.recipe import AdapterSection
from dcft_cli.targets.head import Parts
from dcft_cli.targets.resolve import find_targets
from tests.small import Fused, delta_of, perturb


def attached(model: nn.Module, *targets: str) -> DCFT:
    method = DCFT(AdapterSection(kernel_size=3, targets=list(targets)), seed=0)
    found = find_targets(model, targets) if targets else []
    method.attach(model, Parts(tuple(found), frozenset(), frozenset()))
    perturb(model)
    return method


def test_the_change_of_weights_is_the_median_of_the_layers() -> None:
    method = attached(nn.Sequential(Fused(), Fused()), "*")
    shares = sorted(
        (delta_of(a).norm() / a.target.matrix.parameter.double().norm()).item()
        for a in adapter_layers(method.model).values()
    )
    middle = (shares[(len(shares) - 1) // 2] + shares[len(shares) // 2]) / 2
    assert method.weight_change() == pytest.approx(middle, rel=1e-5)


def test_without_weights_there_is_no_change() -> None:
    method = DCFT(AdapterSection(targets=["0"]), seed=0)
    model = nn.Sequential(nn.Linear(6, 6)).requires_grad_(False)
    method.model = model
    assert method.weight_change() is None


@pytest.mark.parametrize(
    ("weight", "form"), [(0.0, "squared"), (0.1, "squared"), (2.0, "mean_norm")]
)
def test_the_penalty_is_the_weighted_orthogonality_term(weight: float, form: str) -> None:
    method = attached(nn.Sequential(nn.Linear(6, 9)), "0")
    method.settings = AdapterSection(orthogonality=weight, orthogonality_form=form)
    penalty = method.penalty()
    if not weight:
        assert penalty is None
        return
    (layer,) = adapter_layers(method.model).values()
    distances = [abs(f.square().sum().item() - 1) for f in (layer.A, layer.B)]
    values = [d * d for d in distances] if form == "squared" else distances
    expected = sum(values) / (1 if form == "squared" else 2)
    assert penalty.item() == pytest.approx(weight * expected, rel=1e-5)
