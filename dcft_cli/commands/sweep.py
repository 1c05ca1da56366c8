"""`dcft sweep`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcft_cli.commands.options import Json, Overrides, complete_recipe, complete_setting
from dcft_cli.commands.signals import handlers
from dcft_cli.commands.tokenizers import stop_parallelism
from dcft_cli.outputs import check_folder, refuse_address
from dcft_cli.processes import process_count

if TYPE_CHECKING:
    from dcft_cli.sweeping.board import Board
    from dcft_cli.sweeping.cells import Sweep


def sweep(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="YAML file, or name of a recipe that comes with dcft; may have a section sweep.",
            autocompletion=complete_recipe,
        ),
    ],
    overrides: Overrides = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2",
            help="Values of a setting, as in a YAML list; several: every combination.",
            autocompletion=complete_setting,
        ),
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=LOW..HIGH",
            help="Search for the best number in a range.",
            autocompletion=complete_setting,
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Runs of each search.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Runs of each combination, by seed.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of the run folders. Default: runs/NAME-sweep."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Database that processes share. Default: the file sweep.journal in DIR.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes, each with its own device.")
    ] = 1,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Repeat runs that failed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all runs and list them; train nothing.")
    ] = False,
    json: Json = False,
    worker: Annotated[bool, typer.Option("--worker", hidden=True)] = False,
) -> None:
    """Train a recipe with several settings and seeds, each combination once.

    The same command, typed again or on other hosts, shares the work and
    repeats nothing that is finished. Exit code 1 if a run failed.

    dcft sweep my.yaml --grid training.learning_rate=1e-3,5e-3 --seeds 3
    dcft sweep my.yaml --tune training.learning_rate=1e-4..1e-2 --trials 20
    """
    planned = _plan(
        recipe, overrides or (), grid=grid or (), tune=tune or (), trials=trials, seeds=seeds
    )
    folder = Path(output or f"runs/{planned.name}-sweep").expanduser()
    if dry_run:  # lists the runs in a folder of others too
        refuse_address(folder, "folder")
    else:
        check_folder(folder)

    from dcft_cli.commands.imports import gc_paused
    from dcft_cli.console.output import print_json, waiting
    from dcft_cli.console.sweeps import show_cells, show_results

    with waiting("Checking the runs"):
        with gc_paused():
            from dcft_cli.sweeping.board import open_board
            from dcft_cli.sweeping.counts import adapter_parameters
            from dcft_cli.sweeping.summary import to_json

        parameters, missing = adapter_parameters(planned.cells, need_models=not dry_run)
        board = open_board(planned, storage, folder, dry_run=dry_run)
    if not dry_run and jobs > 1 and not worker:
        _train_in_processes(context.obj, jobs, planned)
    elif not dry_run:
        _train(board, retry_failed=retry_failed, live=not worker)
    runs = board.runs()
    if worker:
        pass  # the process that started this one reports
    elif json:
        print_json({**to_json(planned, runs), "adapter_parameters": parameters})
    elif dry_run:
        show_cells(runs, parameters, missing)
    else:
        show_results(planned, runs)
    if not dry_run and any(run.status == "failed" for run in runs):
        raise typer.Exit(1)


def _plan(recipe: str, overrides: Sequence[str], **arguments: Any) -> "Sweep":
    """Check all that needs no slow imports: mistakes show at once."""
    from dcft_cli.errors import UserError
    from dcft_cli.recipe import load_recipe
    from dcft_cli.sweeping.arguments import with_arguments
    from dcft_cli.sweeping.cells import plan_sweep
    from dcft_cli.sweeping.storage import require_optuna

    section = with_arguments(load_recipe(recipe, overrides).recipe.sweep, **arguments)
    planned = plan_sweep(recipe, overrides, section)
    require_optuna()
    if process_count() > 1:
        raise UserError(
            "A sweep runs in processes that are independent of each other, not under torchrun.",
            "Start it without, with --jobs N for N devices.",
        )
    return planned


def _train(board: "Board", *, retry_failed: bool, live: bool) -> None:
    from dcft_cli.console.sweeps import sweep_view
    from dcft_cli.sweeping.worker import Worker

    stop_parallelism()
    with handlers(_interrupt), sweep_view(live=live) as view:
        Worker(board, view, retry_failed=retry_failed).work()


def _train_in_processes(arguments: Sequence[str], jobs: int, planned: "Sweep") -> None:
    from dcft_cli.sweeping.jobs import run_jobs

    command, *others = (part for part in arguments if part != "--json")
    with handlers(_interrupt):
        run_jobs([command, "--worker", *others], jobs, planned.cells)


def _interrupt(number: int, frame: object) -> None:
    """Treat SIGTERM, which schedulers of clusters send, and a closed terminal like Ctrl-C."""
    raise KeyboardInterrupt
