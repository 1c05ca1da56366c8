"""The processes of one run, as torchrun names them in the environment; needs no torch."""

import json
import os
import re
import signal
import threading
import time
from pathlib import Path

from dcft_cli.errors import DCFTError

_PARENT = "DCFT_PARENT"  # of the processes that --devices starts: its process id
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # torchrun reads there why a process failed
_LOST = re.compile(r"Connection (closed|reset) by peer|Broken pipe|remote process exited")
LOST = DCFTError(
    "Another process of the run has ended.",
    "Checkpoints of a training are kept: continue with --resume.",
)
"""What a process reports that has lost another one; that one may know the reason."""
_SECONDS = 1.0  # between two looks at the parent


def process_count() -> int:
    """Return the number of processes of the run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Return the number of this process; the main one is 0."""
    # Some clusters set RANK for processes that are no group: those have no LOCAL_RANK.
    return int(os.environ.get("RANK", "0")) if "LOCAL_RANK" in os.environ else 0


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def is_launched() -> bool:
    """Return whether `--devices` started this process: its parent reports how the run ended."""
    return os.environ.get(_PARENT, str(os.getpid())) != str(os.getpid())


def is_reporter() -> bool:
    """Return whether this process tells the user about errors."""
    return process_rank() == 0 and not is_launched()


def launched_environment() -> dict[str, str]:
    """Return what the processes that this one starts for `--devices` need in their environment."""
    return {_PARENT: str(os.getpid())}


def record_error(error: DCFTError) -> None:
    """Leave an error for torchrun, or for the parent that `--devices` has, if there is one."""
    if path := os.environ.get(_ERROR_FILE):
        record = {"message": error.message, "hint": error.hint, "timestamp": time.time()}
        Path(path).write_text(json.dumps(record), encoding="utf-8")


def has_lost_another(error: Exception) -> bool:
    """Return whether an error only says that another process of the run has ended."""
    # Errors of torch.distributed: a download may lose a connection, too.
    lost = isinstance(error, RuntimeError) and _LOST.search(str(error))
    return process_count() > 1 and bool(lost)


def end_with_parent() -> None:
    """Let this process end when its parent has: torchrun's agent may be killed."""
    parent = os.environ[_PARENT]

    def watch() -> None:
        while str(os.getppid()) == parent:
            time.sleep(_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
