"""Batches of rows of similar lengths."""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler


class SeededLengthGroups(LengthGroupedSampler):
    """Groups rows of similar lengths in an order that seed and epoch alone decide.

    transformers' own draws from torch's global random state, which a run that is resumed within
    an epoch no longer has: it would go on in another order.

    Args:
        batch_size: rows of one optimizer step on one device.
        lengths: of all rows.
        seed: of the run.

    Attributes:
        epoch: set before each epoch. The Trainer's own set_epoch reaches no sampler that is
            shared among processes.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        # No epoch of one seed is an epoch of the next seed.
        self.generator.manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        return iter(super().__iter__())  # type: ignore[no-untyped-call]


class EpochOfGroups(TrainerCallback):
    """Tells length groups which epoch it is, resumed runs included.

    Attributes:
        groups: None until there are any.
    """

    groups: SeededLengthGroups | None = None

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Counts the epochs that are done."""
        if self.groups is not None:
            self.groups.epoch = int(state.epoch or 0)
