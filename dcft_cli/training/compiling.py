"""torch.compile: whether this machine can, and a model with it."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dcft_cli.errors import TrainingError, UserError

_OLDEST_CAPABILITY = (7, 0)  # of the CUDA devices that Triton knows
_WITHOUT = "Or train without: training.compile=false."


def check_compiler(device: torch.device, in_one_process: int = 1) -> None:
    """Looks for what torch.compile needs on a device; nothing is compiled.

    Args:
        in_one_process: devices that one process would share out a batch to.

    Raises:
        UserError: something is missing; says what.
    """
    if in_one_process > 1:
        raise UserError(
            f"training.compile=true works for one device a process, and {in_one_process} are seen.",
            "Start with torchrun, or name one device: CUDA_VISIBLE_DEVICES=0. " + _WITHOUT,
        )
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _OLDEST_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise UserError(
            f"training.compile=true, but torch.compile knows no device as old as {name}.", _WITHOUT
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError(
            "training.compile=true, but the package triton is not installed here.",
            f"pip install triton. {_WITHOUT}",
        )
    own, names = "CXX", ["c++", "g++", "clang++", "cl"]
    if device.type == "cuda":
        own, names = "CC", ["cc", "gcc", "clang"]  # for the code that starts Triton's kernels
    if not any(shutil.which(name) for name in (os.environ.get(own, ""), *names) if name):
        raise UserError(
            f"training.compile=true, but no compiler is here (looked for {', '.join(names)}).",
            f"Install one, such as g++, or name yours: {own}=PATH. {_WITHOUT}",
        )


def compile_model(model: nn.Module, backend: str = "inductor") -> None:
    """Has torch compile the model's forward and backward pass at its first batches.

    In place: class, names of parameters and what is saved stay as they are.

    Args:
        backend: of torch.compile; another one than its default is for tests.
    """
    # Batches have their own lengths: a program for each would be compiled again and again.
    model.compile(dynamic=True, backend=backend)


@contextmanager
def compile_errors_told() -> Iterator[None]:
    """Makes a TrainingError of a model, or a compiler, that torch.compile fails with."""
    from torch._dynamo.exc import TorchDynamoException  # not without need: it takes a second

    try:
        yield
    except TorchDynamoException as error:
        inner = getattr(error, "inner_exception", error)  # of the compiler itself
        reason = next((line for line in str(inner).splitlines() if line.strip()), repr(inner))
        raise TrainingError(
            f"torch.compile failed: {reason}", "Train without: training.compile=false."
        ) from error
