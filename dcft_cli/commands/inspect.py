"""`dcft inspect`."""

from typing import Annotated

import typer

from dcft_cli.commands.options import Json, Overrides


def inspect(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Adapter file, run folder, or recipe.")
    ],
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Count parameters and list modules: of an adapter file, or of a recipe before training.

    dcft inspect runs/rte/adapter.safetensors
    dcft inspect recipes/rte.yaml adapter.kernel_size=2
    """
    from dcft_cli.console.output import print_json, waiting
    from dcft_cli.console.tables import show_inspection

    with waiting("Looking"):
        from dcft_cli.runs import inspection

        found = inspection.inspect(source, overrides or ())
    if json:
        print_json(found.to_json())
    else:
        show_inspection(found)
