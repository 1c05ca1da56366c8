"""Optimizer steps that float16 skips: nothing of a method moves."""

import pytest
import torch

from tests.families import tiny_model, tokens
from tests.methods.attached import attach


@pytest.mark.parametrize("where", ["parameters", "head"])
def test_gates_stay_in_a_skipped_step(where: str) -> None:
    method = attach("sora", tiny_model(), gate_threshold=0.01)

    def step(overflows: bool) -> bool:
        """Whether a step moves the gates; the optimizer does not, as in one that is skipped."""
        before = {n: p.detach().clone() for n, p in method.parameters().items()}
        method.model.zero_grad()
        method.model(**tokens(), labels=torch.tensor([0, 1, 0])).loss.backward()
        if overflows:
            gradient = next(iter(getattr(method, where)().values())).grad
            assert gradient is not None
            gradient.view(-1)[0] = torch.inf
            torch.nn.utils.clip_grad_norm_(method.model.parameters(), 1.0)
        method.after_step(1)
        return any(not torch.equal(p, before[n]) for n, p in method.parameters().items())

    assert step(overflows=False)
    assert not step(overflows=True)
