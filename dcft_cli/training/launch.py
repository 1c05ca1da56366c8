"""`--devices`: the same command in several processes of this machine, by torchrun's launcher."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any
from uuid import uuid4

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from dcft_cli.errors import DCFTError, UserError
from dcft_cli.processes import LOST, launched_environment, usable_cores

_SHUTDOWN_SECONDS = 45  # until stopped processes are killed; a dead one ends a run within 60


def launch(arguments: Sequence[str], processes: int, device: str) -> None:
    """Run a `dcft` command line in several processes, and wait for them.

    Args:
        arguments: of the command line; `--devices` among them.
        device: `training.device` of the recipe.

    Raises:
        UserError: fewer GPUs than processes, or the mistake that the processes found.
        DCFTError: a process failed or died; the others are stopped then.
        SystemExit: a signal stopped the processes.
    """
    _check_devices(processes, device)
    # This process does nothing else: it reports itself, and its processes inherit the environment.
    logging.disable()
    os.environ.update(launched_environment())
    if device == "cpu" or not torch.cuda.is_available():
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))
    stopped = _run(["-m", "dcft_cli", *arguments], processes)
    if stopped is not None:  # the main process has said how to go on
        sys.exit(128 + stopped)  # as a shell reports it


def _run(command: Sequence[str], processes: int) -> int | None:
    """Run Python with these arguments; return the signal by which the user stopped it, if any."""
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.2,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            **_stopping(),
        )
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            raise _reason(error.failures) from None
        except SignalException as error:
            return int(error.sigval)
    return None


def _stopping() -> dict[str, Any]:
    """Return settings of the launcher for signals, as far as this torch has them.

    A signal that is ignored (`nohup`) stays ignored. A stopped process may have to finish an
    evaluation before it saves a checkpoint.
    """
    names = [
        name
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
        if (number := getattr(signal, name, None)) is not None
        and signal.getsignal(number) is not signal.SIG_IGN
    ]
    settings = {"signals_to_handle": ",".join(names), "shutdown_timeout": _SHUTDOWN_SECONDS}
    known = {field.name for field in fields(LaunchConfig)}
    return {name: value for name, value in settings.items() if name in known}


def _check_devices(processes: int, device: str) -> None:
    """Raise UserError if there are fewer GPUs than processes, which take one each."""
    if device == "cpu":
        return
    if torch.backends.mps.is_available():
        raise UserError(
            "--devices needs several CUDA devices, or CPUs; an Apple GPU is one device.",
            "Leave --devices out, or set training.device=cpu.",
        )
    available = torch.cuda.device_count()
    if (device == "cuda" or available) and processes > available:
        raise UserError(
            f"--devices {processes}, but there are {available} CUDA devices.",
            "Name at most as many, or set training.device=cpu for several processes on CPUs.",
        )


def _reason(failures: Mapping[int, ProcessFailure]) -> DCFTError:
    """Return why the processes failed, as an error to report.

    An error that a process recorded, unless it only lost another one; else how a process ended,
    if possible one that the launcher has not stopped.
    """
    recorded = [f for f in failures.values() if "hint" in f.error_file_data]
    if recorded := [f for f in recorded if f.message != LOST.message]:
        first = min(recorded, key=lambda f: float(f.error_file_data["timestamp"]))
        kind = UserError if first.exitcode == UserError.exit_code else DCFTError
        return kind(str(first.message), str(first.error_file_data["hint"]))
    # The launcher stops the rest by SIGTERM; those that have lost another one exit with 1.
    later = (-signal.SIGTERM, 128 + signal.SIGTERM, LOST.exit_code)
    rank, failure = min(failures.items(), key=lambda found: found[1].exitcode in later)
    how = f"with exit code {failure.exitcode}"
    if failure.exitcode < 0:
        how = f"by {failure.signal_name()}"
    if failure.exitcode == -signal.SIGKILL:
        how += ", perhaps for lack of memory"
    return DCFTError(f"Process {rank} of the run was ended {how}.", LOST.hint)
