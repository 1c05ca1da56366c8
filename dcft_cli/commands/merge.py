"""`dcft merge`."""

from typing import Annotated, Literal

import typer


def merge(
    base: Annotated[
        str,
        typer.Argument(metavar="BASE", help="Base model in full precision: Hub name or folder."),
    ],
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="Run folder or adapter file.")],
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="New or empty folder for the merged model.")
    ],
    dtype: Annotated[
        Literal["base", "float32", "bfloat16", "float16"],
        typer.Option(
            metavar="TYPE",
            help="Type of the stored weights: float32, bfloat16, float16; base: as in the base's "
            "config.json.",
        ),
    ] = "base",
) -> None:
    """Merge an adapter into its base model and verify the result.

    dcft merge microsoft/deberta-v3-base runs/rte merged/
    dcft merge microsoft/deberta-v3-base runs/rte merged/ --dtype bfloat16
    """
    from dcft_cli.commands.imports import gc_paused
    from dcft_cli.console.output import waiting
    from dcft_cli.console.tables import show_merge

    with waiting("Merging and verifying"):
        with gc_paused():
            from dcft_cli.merging import merge as merging

        result = merging.merge(base, adapter, out, dtype=dtype)
    show_merge(result)
