"""Stopping between two steps because the user or the system asks for it."""

from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerState

from dcft_cli.errors import Stopped


class StopRequest:
    """What asks a run to stop: the number of a signal, set by its handler; 0 for none.

    Attributes:
        can_wait: whether the run will see the request after its current step.
    """

    def __init__(self) -> None:
        self.number = 0
        self.can_wait = False


class StopAfterStep(TrainerCallback):
    """Save a checkpoint after the step in which a stop is requested, and raise `Stopped`.

    All processes of a run stop after the same step, even if only one of them was asked.
    """

    def __init__(self, request: StopRequest) -> None:
        self.request = request
        self._agreed = 0
        self._group: Any = None

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Connect the processes by their CPUs: waiting for a GPU at every step takes time."""
        if dist.is_available() and dist.is_initialized():
            self._group = dist.new_group(backend="gloo")

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Let requests wait from the first step on."""
        self.request.can_wait = True

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint if one of the processes is to stop."""
        self._agree()
        control.should_save = control.should_save or self._agreed > 0

    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Stop, now that the checkpoint is there."""
        if self._agreed:
            raise Stopped(self._agreed, state.global_step)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Stop if a request came after the last step; none may wait from here on."""
        self.request.can_wait = False
        self._agree()
        if self._agreed:
            raise Stopped(self._agreed, state.global_step)

    def _agree(self) -> None:
        asked = torch.tensor(self.request.number)
        if self._group is not None:
            dist.all_reduce(asked, dist.ReduceOp.MAX, group=self._group)
        self._agreed = int(asked)
