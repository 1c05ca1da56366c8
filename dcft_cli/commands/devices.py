"""`--devices`, for commands that several processes can share."""

from collections.abc import Callable, Sequence
from os import environ
from typing import Annotated

import typer

from dcft_cli.errors import UserError
from dcft_cli.processes import end_with_parent, is_launched, process_count

Devices = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Use N devices of this machine, with one process each (torchrun's launcher).",
    ),
]


def start_processes(context: typer.Context, devices: int | None, device: Callable[[], str]) -> bool:
    """Run this command line in `devices` processes, if that is left to do; return whether it was.

    Args:
        context: of the command; `obj` is the command line.
        device: returns `training.device` of the recipe.

    Raises:
        UserError: too few devices, or a launcher has started another number of processes.
    """
    if is_launched():
        end_with_parent()
        return False
    if "WORLD_SIZE" in environ and devices not in (None, process_count()):
        raise UserError(
            f"--devices {devices}, but {process_count()} processes were started.",
            "Start the command without torchrun or accelerate, or leave --devices out.",
        )
    if devices in (None, 1) or process_count() > 1:
        return False
    from dcft_cli.commands.imports import gc_paused

    with gc_paused():
        from dcft_cli.training.launch import launch

    launch(context.obj, devices, device())
    return True


def device_of(adapter: str, overrides: Sequence[str]) -> str:
    """Return `training.device` of the recipe of a run folder or adapter file."""
    from dcft_cli.commands.imports import gc_paused

    with gc_paused():
        from dcft_cli.adapter_file.read import read_contents
        from dcft_cli.runs.adapted import recipe_of
        from dcft_cli.runs.folder import adapter_file

    path = adapter_file(adapter)
    return recipe_of(path, read_contents(path), overrides).training.device
