"""torch.compile: compiling a model, and reporting a failure to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from dcft_cli.errors import TrainingError


@contextmanager
def compiling(model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> Iterator[None]:
    """Context in which torch compiles the model's passes at their first batches, in place.

    Class, parameter names and checkpoints stay as they are. The model stays compiled.

    Args:
        backend: of torch.compile; tests use one that needs no compiler.

    Raises:
        TrainingError: torch.compile failed, for lack of a compiler for example.
    """
    # Batches differ in length: without dynamic shapes each length would be compiled again.
    model.compile(dynamic=True, backend=backend)
    try:
        yield
    except RuntimeError as error:
        # Its exceptions have no public name.
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        inner = getattr(error, "inner_exception", error)  # of the backend
        reason = next((line for line in str(inner).splitlines() if line.strip()), repr(inner))
        raise TrainingError(
            f"torch.compile failed: {reason}", "Train without: training.compile=false."
        ) from error
