"""`dcft inspect`."""

from typing import Annotated

import typer

from dcft_cli.commands.options import Json, Overrides


def inspect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Adapter file, run folder or recipe. With --targets: recipe or base model.",
        ),
    ],
    overrides: Overrides = None,
    targets: Annotated[
        bool,
        typer.Option(
            "--targets",
            help="Show the layers that a recipe's targets select, or the roles in a base model "
            "(Hub name, folder or config.json). Loads no weights.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Show layers and parameter counts of an adapter or a recipe.

    dcft inspect runs/rte
    dcft inspect recipes/rte.yaml adapter.kernel_size=2
    dcft inspect --targets answerdotai/ModernBERT-base
    """
    from dcft_cli.console.inspections import show_inspection, show_resolution
    from dcft_cli.console.output import print_json, waiting

    with waiting("Inspecting"):
        if targets:
            from dcft_cli.runs.inspect_targets import resolve

            resolution = resolve(source, overrides or ())
        else:
            from dcft_cli.runs import inspect_adapter

            found = inspect_adapter.inspect(source, overrides or ())
    if json:
        print_json(resolution.to_json() if targets else found.to_json())
    elif targets:
        show_resolution(resolution)
    else:
        show_inspection(found)
