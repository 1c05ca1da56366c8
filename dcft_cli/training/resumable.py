"""A Trainer whose checkpoints are whole, finite and exact, and hold nothing that is unpickled.

transformers writes a checkpoint in place, and optimizer, schedule and random states as pickles. Of
its hooks, this module replaces the one that writes checkpoints and the two that read these states.
"""

import json
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_callback import ExportableState

from dcft_cli.training.callbacks import diverged
from dcft_cli.training.checkpoints import (
    TRAINER_STATE,
    checkpoint_path,
    read_json,
    remove_others,
    write_checkpoint,
)
from dcft_cli.training.training_state import (
    RandomState,
    load_optimizer,
    load_schedule,
    optimizer_state,
)

RUN_STATE = "run_state.json"
"""File in a checkpoint with what is no tensor: schedule, random states, what was trained on."""

_OPTIMIZER = "optimizer.safetensors"
_RANDOM = "random.safetensors"


class ResumableTrainer(Trainer):
    """See the module; a subclass writes and reads the trained weights.

    Attributes:
        adapted_model: the model, never wrapped for parallel training.
        identity: plain values kept in each checkpoint, by which a run to resume is recognized.
    """

    adapted_model: nn.Module

    def __init__(self, *args: Any, identity: Mapping[str, Any], **kwargs: Any) -> None:
        self.identity = identity
        self._earlier: Path | None = None  # the best or, without scores, the last checkpoint
        super().__init__(*args, **kwargs)
        # The Trainer keeps the sum of the losses since it last logged, and forgets it on a resume.
        self._unlogged_loss = torch.zeros((), device=self.args.device)
        self._logged_step = 0
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training and scoring so far, with those before the checkpoints resumed."""
        return time.perf_counter() - self._began

    def restore_seconds(self, checkpoint: Path) -> None:
        """Count the time before a checkpoint, too."""
        self._began -= read_json(checkpoint, RUN_STATE)["seconds"]

    @abstractmethod
    def write_weights(self, folder: Path) -> None:
        """Write the trained weights into a checkpoint folder."""

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute a loss and its gradients; add it to those not logged yet."""
        loss = super().training_step(*args, **kwargs)
        self._unlogged_loss += loss
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; the loss is the mean since it was last logged, before a resume too."""
        if "loss" in logs:
            losses = self.accelerator.gather(self._unlogged_loss)
            steps = self.state.global_step - self._logged_step
            logs["loss"] = losses.mean().item() / steps
            self._unlogged_loss.zero_()
            self._logged_step = self.state.global_step
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint, then remove those that are not needed beside it.

        Kept are the new one and the best before it. Each can be resumed without the other ones.

        Raises:
            TrainingError: a loss or a trained weight is not finite; earlier checkpoints stay.
        """
        self._check_finite()
        folder = Path(str(self.args.output_dir))
        path, best = checkpoint_path(folder, self.state.global_step), self.state.best_global_step
        if best is not None:
            self.state.best_model_checkpoint = str(checkpoint_path(folder, best))
        tensors, settings = self._states()
        if self.args.should_save:
            write_checkpoint(path, lambda part: self._write(part, tensors, settings))
            remove_others(folder, {path, self._earlier or path})
        self.accelerator.wait_for_everyone()
        self._earlier = path if best is None else checkpoint_path(folder, best)

    def _check_finite(self) -> None:
        trained = [p.detach() for p in self.adapted_model.parameters() if p.requires_grad]
        values = [self._unlogged_loss, *trained]
        finite = torch.stack([value.isfinite().all() for value in values]).all()
        if not self.accelerator.gather(finite.float()[None]).all():
            raise diverged("the loss or a trained weight is not finite", self.args, self.state)

    def _states(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return the states of this moment, tensors by file and the rest; every process calls."""
        optimizer, groups = optimizer_state(self.adapted_model, _inner(self.optimizer, "optimizer"))
        state = RandomState.now(self.args.device, max(1, self.args.n_gpu))
        processes: list[dict[str, Any]] = gather_object(
            [{"random": state, "unlogged_loss": self._unlogged_loss.item()}]
        )
        scheduler, scaler = _inner(self.lr_scheduler, "scheduler"), self.accelerator.scaler
        settings = {
            "identity": dict(self.identity),
            "seconds": self.seconds,
            "schedule": scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "optimizer_groups": groups,
            "logged_step": self._logged_step,
            "processes": [
                {"random": p["random"].plain, "unlogged_loss": p["unlogged_loss"]}
                for p in processes
            ],
        }
        generators = {
            f"{rank}/{number}": tensor
            for rank, process in enumerate(processes)
            for number, tensor in enumerate(process["random"].generators)
        }
        return {_OPTIMIZER: optimizer, _RANDOM: generators}, settings

    def _write(
        self, folder: Path, tensors: dict[str, dict[str, Tensor]], settings: dict[str, Any]
    ) -> None:
        self.write_weights(folder)
        for name, values in tensors.items():
            save_file({key: value.contiguous() for key, value in values.items()}, folder / name)
        (folder / RUN_STATE).write_text(json.dumps(settings) + "\n", encoding="utf-8")
        callbacks: Any = self.state.stateful_callbacks
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):
                callbacks[type(callback).__name__] = callback.state()
        self.state.save_to_json(str(folder / TRAINER_STATE))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        path = Path(checkpoint)
        settings, optimizer = read_json(path, RUN_STATE), _inner(self.optimizer, "optimizer")
        tensors = load_file(path / _OPTIMIZER)
        load_optimizer(self.adapted_model, optimizer, tensors, settings["optimizer_groups"])
        scheduler = _inner(self.lr_scheduler, "scheduler")
        load_schedule(scheduler, optimizer, settings["schedule"])
        if self.accelerator.scaler is not None and settings["scaler"]:
            self.accelerator.scaler.load_state_dict(settings["scaler"])
        self.restore_seconds(path)
        losses = [part["unlogged_loss"] for part in settings["processes"]]
        rank, same = self.args.process_index, len(losses) == self.args.world_size
        # `log` takes the mean over the processes.
        self._unlogged_loss.fill_(losses[rank] if same else fmean(losses))
        self._logged_step = settings["logged_step"]
        # The Trainer would evaluate and log as often as the checkpoint's run did.
        self.state.compute_steps(self.args, self.args.max_steps)  # type: ignore[no-untyped-call]
        best = self.state.best_global_step
        self._earlier = path if best is None else checkpoint_path(path.parent, best)

    def _load_scaler(self, checkpoint: str | None) -> None:
        pass  # with the optimizer

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        path = Path(checkpoint)
        processes = read_json(path, RUN_STATE)["processes"]
        # With more processes than before, some have the same.
        tensors, rank = load_file(path / _RANDOM), self.args.process_index % len(processes)
        count = sum(name.startswith(f"{rank}/") for name in tensors)
        generators = [tensors[f"{rank}/{number}"] for number in range(count)]
        state = RandomState(processes[rank]["random"], generators)
        state.restore(self.args.device, max(1, self.args.n_gpu))


def _inner(wrapper: Any, name: str) -> Any:
    """Return torch's optimizer or schedule in that of accelerate."""
    return getattr(wrapper, name, wrapper)
