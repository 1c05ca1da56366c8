"""`--jobs`: the same sweep in several processes on this host, each with a device of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence

from dcft_cli.errors import DCFTError
from dcft_cli.processes import usable_cores
from dcft_cli.sweeping.cells import Cell

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def run_jobs(arguments: Sequence[str], jobs: int, cells: Iterable[Cell]) -> None:
    """Run a `dcft` command in several processes, and wait for all of them.

    Args:
        arguments: of the command.

    Raises:
        DCFTError: a process ended with another error than failed runs.
        KeyboardInterrupt: the user stops; the processes are stopped too.
    """
    command = [sys.executable, "-m", "dcft_cli", *arguments]
    uses_cuda = any(cell.recipe.training.device in ("auto", "cuda") for cell in cells)
    devices = _devices() if uses_cuda else []
    processes = [
        # In a group of its own: Ctrl-C reaches it once, as SIGTERM from here.
        subprocess.Popen(command, env=_environment(job, jobs, devices), start_new_session=True)
        for job in range(jobs)
    ]
    try:
        codes = [process.wait() for process in processes]
    except BaseException:  # Ctrl-C above all: nothing goes on without this process
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
        raise
    if broken := [code for code in codes if code not in (0, 1)]:
        raise DCFTError(
            f"{len(broken)} of {jobs} processes ended early (exit code {broken[0]}).",
            "Start the same command again: finished runs are not repeated.",
        )


def _devices() -> list[str]:
    """Return the CUDA devices that this process may use, as other processes name them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get(_VISIBLE, "")
    names = [name.strip() for name in named.split(",") if name.strip()]
    return (names or [str(number) for number in range(count)])[:count]


def _environment(job: int, jobs: int, devices: Sequence[str]) -> dict[str, str]:
    if devices:
        return os.environ | {_VISIBLE: devices[job % len(devices)]}
    return os.environ | {"OMP_NUM_THREADS": str(max(1, usable_cores() // jobs))}
