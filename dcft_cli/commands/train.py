"""`dcft train`."""

import shlex
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from dcft_cli.commands.devices import Devices, start_processes
from dcft_cli.commands.options import Overrides, complete_recipe
from dcft_cli.commands.signals import ended_in_order, stop_requests
from dcft_cli.commands.tokenizers import stop_parallelism
from dcft_cli.errors import Stopped

if TYPE_CHECKING:
    from dcft_cli.runs.folder import RunFolder


def _show_settings(wanted: bool) -> None:
    if wanted:
        from dcft_cli.console.recipes import show_settings
        from dcft_cli.recipe.settings import settings

        show_settings(settings())
        raise typer.Exit


def train(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="YAML file, or name of a recipe that comes with dcft.",
            autocompletion=complete_recipe,
        ),
    ],
    overrides: Overrides = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Run folder. Default: training.output of the recipe, else runs/NAME.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check everything and print the plan without loading weights."
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Resume from the last checkpoint although some settings have changed."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in the run folder.")
    ] = False,
    devices: Devices = None,
    help_settings: Annotated[
        bool,
        typer.Option(
            "--help-settings",
            callback=_show_settings,
            is_eager=True,
            help="Show every setting of a recipe, with its default and meaning.",
        ),
    ] = False,
) -> None:
    """Train an adapter from a recipe.

    dcft train recipes/rte.yaml
    dcft train my.yaml --dry-run
    dcft train my.yaml training.learning_rate=2e-3 --output runs/slower
    dcft train my.yaml --devices 4
    """
    from dcft_cli.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())  # before slow imports: mistakes show at once
    if start_processes(context, devices, lambda: loaded.recipe.training.device):
        return

    from dcft_cli.commands.imports import gc_paused
    from dcft_cli.console.output import waiting
    from dcft_cli.console.progress import reporter
    from dcft_cli.console.tables import show_plan, show_training

    with ExitStack() as held:
        with ended_in_order(), waiting("Reading the data"):
            with gc_paused():
                from dcft_cli.runs.finished import finished_note
                from dcft_cli.runs.plan import plan_training, run_folder
                from dcft_cli.runs.train import train as run
                from dcft_cli.training.stopping import StopAfterStep, StopRequest

            # Until the run ends, and before anything of an earlier run is looked at.
            note = "" if dry_run else held.enter_context(run_folder(loaded, output).lock())
            plan = plan_training(loaded, output=output, overwrite=overwrite, resume=resume)
        is_main = plan.machine.is_main
        if is_main and (dry_run or not finished_note(plan)):
            show_plan(plan, dry_run=dry_run)
        if dry_run:
            return
        stop_parallelism()
        request = StopRequest()
        try:
            with stop_requests(request), reporter(active=is_main) as view:
                if note:
                    view.noted(note)
                result = run(plan, view, callbacks=[StopAfterStep(request)])
        except Stopped as stopped:
            if is_main:
                _say_how_to_go_on(stopped, plan.folder, context.obj)
            raise typer.Exit(stopped.exit_code) from None
        if is_main:
            show_training(result)


def _say_how_to_go_on(stopped: Stopped, folder: "RunFolder", arguments: Sequence[str]) -> None:
    """Print what is saved of a stopped run, and the command that continues it."""
    # What is there before the folder is opened is the run to replace.
    replaces = "--overwrite" in arguments
    checkpoint = None if replaces and not folder.is_open else folder.last_checkpoint()
    dropped = ("--resume",) if checkpoint is None else ("--resume", "--overwrite")
    again = ["dcft", *(part for part in arguments if part not in dropped)]
    if checkpoint is None:
        saved = "No checkpoint is saved yet. Start again"
    else:
        again.append("--resume")
        saved = f"{checkpoint.name} is saved. Continue"
    after = f" after step {stopped.step}" if stopped.step else ""
    with suppress(OSError):  # the terminal may be closed
        typer.echo(f"\nStopped{after}. {saved} with:\n  {shlex.join(again)}", err=True)
