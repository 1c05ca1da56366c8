"""What the methods computed here have in common, in models of several families."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from tests.families import tiny_model, tokens
from tests.methods.attached import assert_merges, attach, gradients, logits, model_of, perturb

LOW_RANK = [
    (name, family)
    for name in ("nola", "sora")
    for family in ("bert", "deberta-v2", "modernbert", "gpt2")
]
BOTTLENECKS = [
    (name, family)
    for name in ("houlsby", "pfeiffer")
    for family in ("bert", "deberta-v2", "roberta", "distilbert", "mpnet", "modernbert")
]


@pytest.mark.parametrize(("name", "family"), LOW_RANK)
def test_starts_at_the_base(name: str, family: str) -> None:
    model, inputs = model_of(family).double(), tokens()
    before = logits(model, **inputs)
    attach(name, model)
    assert torch.equal(logits(model, **inputs), before)


@pytest.mark.parametrize(("name", "family"), LOW_RANK + BOTTLENECKS)
def test_gradients_reach_what_is_trained_only(name: str, family: str) -> None:
    model = model_of(family)
    method = perturb(attach(name, model))
    expected = {*method.parameters(), *method.head()}
    assert gradients(model, tokens()) == dict.fromkeys(expected, True)


@pytest.mark.parametrize(("name", "family"), LOW_RANK)
def test_merged_model_is_the_bases(name: str, family: str) -> None:
    model, inputs = model_of(family).double(), tokens()
    plain = deepcopy(model)
    method = perturb(attach(name, model), std=0.6)
    with torch.no_grad():
        for own, parameter in method.parameters().items():
            if own.endswith("gate"):
                parameter[::2] = 0
    assert_merges(method, plain, inputs)


@pytest.mark.parametrize("name", ["houlsby", "pfeiffer", "sora"])
def test_the_seed_decides_the_start(name: str) -> None:
    def start(seed: int) -> Tensor:
        torch.manual_seed(seed + 100)
        method = attach(name, tiny_model(), seed=seed)
        return torch.cat([p.detach().flatten() for p in method.parameters().values()])

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))
