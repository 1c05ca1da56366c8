"""`dcft export`."""

from typing import Annotated, Literal

import typer

from dcft_cli.commands.options import Adapter


def export(
    adapter: Adapter,
    out: Annotated[str, typer.Argument(metavar="OUT", help="New or empty folder for the export.")],
    to: Annotated[
        Literal["peft", "onnx"],
        typer.Option(help="peft: an adapter for PEFT with its head; onnx: the merged model."),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Base model in full precision: Hub name or folder.",
            show_default="the one that ADAPTER names",
        ),
    ] = None,
) -> None:
    """Write an adapter for PEFT or ONNX Runtime and verify the result.

    dcft export runs/rte rte-peft --to peft
    dcft export runs/rte rte-onnx --to onnx
    """
    from dcft_cli.commands.imports import gc_paused
    from dcft_cli.commands.signals import ended_in_order
    from dcft_cli.console.output import waiting
    from dcft_cli.console.tables import show_export

    with ended_in_order(), waiting("Exporting and verifying"):
        with gc_paused():
            from dcft_cli.exporting import export as exporting

        result = exporting.export(adapter, out, to=to, base=base)
    show_export(result)
