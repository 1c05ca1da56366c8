"""`dcft eval`."""

from pathlib import Path
from typing import Annotated

import typer

from dcft_cli.commands.devices import Devices, device_of, start_processes
from dcft_cli.commands.options import Adapter, Json, complete_setting


def evaluate(
    context: typer.Context,
    adapter: Adapter,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Overrides of the recipe, such as data.validation=test.jsonl.",
            autocompletion=complete_setting,
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write every row, with its true label and what is predicted, as jsonl, csv, tsv "
            "or parquet.",
        ),
    ] = None,
    devices: Devices = None,
    json: Json = False,
) -> None:
    """Score an adapter on its recipe's validation data or on other data.

    dcft eval runs/rte
    dcft eval runs/rte model.name=DIR data.validation=other.jsonl --json
    dcft eval runs/rte --predictions rows.csv
    """
    if start_processes(context, devices, lambda: device_of(adapter, overrides or ())):
        return
    from dcft_cli.commands.imports import gc_paused
    from dcft_cli.console.output import print_json
    from dcft_cli.console.progress import reporter
    from dcft_cli.console.tables import show_evaluation

    with gc_paused():
        from dcft_cli.runs.evaluate import evaluate as run

    with reporter(scores=False) as view:
        result = run(adapter, overrides or (), view, predictions=predictions)
    if not result.is_main:
        return
    if json:
        print_json(result.to_json())
    else:
        show_evaluation(result, predictions)
