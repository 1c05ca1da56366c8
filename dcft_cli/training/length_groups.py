"""Batches of rows of similar length."""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState
from transformers.trainer_pt_utils import LengthGroupedSampler


class SeededLengthGroups(LengthGroupedSampler):
    """Group rows of similar length, in an order that depends only on seed and epoch.

    transformers' sampler draws from torch's global random state, which a run that is resumed
    within an epoch no longer has: it would continue in another order.

    Args:
        batch_size: rows of one optimizer step, on all devices together.

    Attributes:
        epoch: set before each epoch. The Trainer's set_epoch does not reach a sampler that is
            split among processes.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        # Distinct streams: no epoch of one seed repeats an epoch of the next seed.
        self.generator.manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        return iter(super().__iter__())  # type: ignore[no-untyped-call]


class SetSamplerEpoch(TrainerCallback):
    """Set the sampler's epoch, in resumed runs too."""

    sampler: SeededLengthGroups | None = None

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Set the number of finished epochs."""
        if self.sampler is not None:
            self.sampler.epoch = int(state.epoch or 0)
