"""What a run saves to go on exactly."""

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_linear_schedule_with_warmup

from dcft_cli.training.training_state import load_schedule


def falling(steps: int) -> tuple[SGD, LambdaLR]:
    """A learning rate that falls from 0.1 to 0."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    return optimizer, get_linear_schedule_with_warmup(optimizer, 0, steps)


def test_a_longer_run_has_its_own_learning_rate_from_the_first_step_on() -> None:
    optimizer, schedule = falling(10)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    longer, its_schedule = falling(20)
    longer.load_state_dict(optimizer.state_dict())
    load_schedule(its_schedule, longer, schedule.state_dict())
    assert longer.param_groups[0]["lr"] == pytest.approx(0.1 * 16 / 20)
    assert its_schedule.get_last_lr() == [longer.param_groups[0]["lr"]]
