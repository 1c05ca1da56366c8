"""torch.compile: compiling a model, and reporting a failure to."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from dcft_cli.errors import TrainingError


def compile_model(model: nn.Module, backend: str = "inductor") -> None:
    """Let torch compile the model's forward and backward pass at its first batches, in place.

    Class, parameter names and checkpoints stay as they are.

    Args:
        backend: of torch.compile; tests use one that needs no compiler.
    """
    # Batches differ in length: without dynamic shapes each length would be compiled again.
    model.compile(dynamic=True, backend=backend)


@contextmanager
def convert_compile_errors() -> Iterator[None]:
    """Convert failures of torch.compile, such as a missing compiler, into TrainingError."""
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
