"""`dcft plot`."""

from pathlib import Path
from typing import Annotated

import typer


def plot(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Run folders.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write (.png, .svg or .html) instead of plotting in the terminal.",
        ),
    ] = None,
) -> None:
    """Plot loss, scores and the size of dW of runs.

    dcft plot runs/tickets
    dcft plot runs/tickets runs/tickets-d2 --output curves.svg
    """
    from dcft_cli.runs.curves import read_curves

    curves = [read_curves(run) for run in runs]
    if output is None:
        from dcft_cli.console.plots import show_plots

        show_plots(curves)
    else:
        from dcft_cli.plotting.figure import write_figure

        write_figure(curves, output)
        typer.echo(output)
