"""The devices and processes of a run, and the precision they compute in."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, release_memory

from dcft_cli.errors import UserError
from dcft_cli.recipe.schema import ModelSection, TrainingSection

# Of the first process to wait for the others, as transformers has it.
_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Machine:
    """Where a run computes, and in which type.

    Attributes:
        devices: number of devices that this process spreads a batch over.
        processes: number of processes (torchrun starts several).
        is_main: whether this process writes the files and reports to the user.
        precision: float32, bfloat16 or float16.
    """

    device: torch.device
    devices: int
    processes: int
    is_main: bool
    precision: str

    @property
    def replicas(self) -> int:
        """Number of devices of the whole run, each of which takes a batch of its own."""
        return self.devices * self.processes

    @property
    def device_name(self) -> str:
        """The device for a reader: "NVIDIA H200 (cuda:0)" or "CPU, 8 threads"."""
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)} ({self.device})"
        if self.device.type == "mps":
            return "Apple GPU (mps)"
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' * (threads > 1)}"

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context of the mixed precision that the Trainer computes in."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.precision))


def find_machine(training: TrainingSection, model: ModelSection) -> Machine:
    """Find the device and precision for a recipe; joins the other processes of the run.

    Raises:
        UserError: a device or precision that this machine does not have.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(training.device, True):
        raise UserError(
            f"training.device={training.device}, but torch {torch.__version__} finds no such "
            "device.",
            "Set training.device=auto, or install a torch build for your device.",
        )
    use_cpu = training.device == "cpu" or not any(available.values())
    _check_launcher()
    state = PartialState(cpu=use_cpu, timeout=_TIMEOUT)
    _check_processes(state)
    distributed = state.distributed_type != DistributedType.NO
    # In one process, the Trainer's own order.
    name = "cpu" if use_cpu else "mps" if available["mps"] else "cuda:0"
    device = state.device if distributed else torch.device(name)
    spread = device.type == "cuda" and not distributed
    devices = max(1, torch.cuda.device_count()) if spread else 1
    precision = _precision(training, model, available["cuda"] and not use_cpu, devices)
    return Machine(
        device=device,
        devices=devices,
        processes=state.num_processes,
        is_main=state.is_main_process,
        precision=precision,
    )


def refuse_mixed_on_several(machine: Machine) -> None:
    """Raise UserError if one process would train or score on several devices in half precision.

    accelerate gives nn.DataParallel no autocast, and its threads take float16 for bfloat16.
    """
    if machine.devices > 1 and machine.precision != "float32":
        raise UserError(
            f"One process computes in float32 on several devices, not in {machine.precision}, and "
            f"{machine.devices} are visible.",
            f"Start a process for each (--devices {machine.devices}), or name one device "
            "(CUDA_VISIBLE_DEVICES=0).",
        )


def free_memory() -> None:
    """Free what a run has left behind, and reset the peak of CUDA memory.

    Raises:
        RuntimeError: the run has left the CUDA device unusable for this process, in which all
            further runs would fail, too.
    """
    release_memory()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def _check_launcher() -> None:
    """Raise UserError if accelerate's launcher asks for an engine that the recipe decides on."""
    for engine in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() in ("true", "1"):
            raise UserError(
                f"accelerate launch is set up for {engine}, which dcft does not take from there.",
                "Use its --multi_gpu without it; training.shard_base=true splits a large base.",
            )
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend != "no":
        raise UserError(
            f"accelerate launch is set up to compile by {backend}, which dcft does not take from "
            "there.",
            "Use its --dynamo_backend no; training.compile=true compiles the model.",
        )


def _check_processes(state: PartialState) -> None:
    """Raise UserError if accelerate's launcher was asked for several processes and started one.

    Without GPUs it needs MPI for several. It names a port where it wants several, and only
    torchrun and MPI number the processes.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ
    if launched and state.num_processes == 1 and "WORLD_SIZE" not in os.environ:
        raise UserError(
            "accelerate launch started one process only: several on CPUs need MPI there.",
            "Use dcft train --devices N, or torchrun --nproc-per-node N -m dcft_cli.",
        )


def _precision(training: TrainingSection, model: ModelSection, cuda: bool, devices: int) -> str:
    if training.precision == "float16" and not cuda:
        raise UserError(
            "training.precision=float16 needs a CUDA device.", "Use float32 or bfloat16."
        )
    if model.dtype != "float32":
        # A half-precision base is computed in its own type; the adapter's float32 is cast.
        if training.precision not in ("auto", model.dtype):
            raise UserError(
                f"training.precision={training.precision} does not fit model.dtype={model.dtype}.",
                f"Set training.precision={model.dtype} or auto.",
            )
        return model.dtype
    if training.precision == "auto":
        # Older devices emulate bfloat16, which costs more time than it saves.
        native = cuda and devices == 1 and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float32"
    return training.precision
