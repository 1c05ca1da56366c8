"""`dcft report`."""

from pathlib import Path
from typing import Annotated

import typer

from dcft_cli.commands.options import Json


def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUNS", help="Run folders, or folders of them at any depth."),
    ],
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write one page with tables and figures that needs no network."
        ),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the tables as Markdown.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all numbers, unrounded, one line per group."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Group that the others are compared with: its name in the table, or a method. "
            "Default: the first group of dcft.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Compare finished runs: scores over seeds, paired differences, sizes and costs.

    dcft report runs
    dcft report runs/sweep --html report.html --csv report.csv
    dcft report runs --reference "dcft kernel_size=2"
    """
    from dcft_cli.commands.imports import gc_paused
    from dcft_cli.outputs import check_file

    for path in (html, markdown, csv):
        if path is not None:
            check_file(path)
    with gc_paused():
        from dcft_cli.reporting.report import make_report
        from dcft_cli.reporting.writing import write_report

    found = make_report(runs, reference)
    written = write_report(found, html=html, markdown=markdown, csv=csv)
    if json:
        from dcft_cli.console.output import print_json

        print_json(found.to_json())
    elif written:
        from dcft_cli.console.comparison import show_files

        show_files(found, written)
    else:
        from dcft_cli.console.comparison import show_comparison

        show_comparison(found)
