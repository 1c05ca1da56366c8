"""Comparisons of runs as tables that fit the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dcft_cli.console.output import err, out, print_note

if TYPE_CHECKING:
    from dcft_cli.reporting.columns import Column
    from dcft_cli.reporting.report import Report, TableReport

_NAME_WIDTH = 34  # a longer name of a group is wrapped


def show_comparison(report: "Report") -> None:
    """Print all tables with their notes; on stderr which runs are not counted."""
    from dcft_cli.reporting.notes import table_notes

    for number, table in enumerate(report.tables):
        if number:
            out.print()
        out.print(Text(f"{table.title}: {table.metric}", style="bold"), soft_wrap=False)
        shown, left_out = _fitting(table)
        out.print(shown)
        for note in table_notes(table):
            out.print(Text(note, style="dim"), soft_wrap=not out.is_terminal)
        if left_out:
            names = ", ".join(left_out)
            line = f"Not shown at this width: {names}. --html, --markdown and --csv have them."
            out.print(Text(line, style="dim"), soft_wrap=not out.is_terminal)
    _show_excluded(report)


def show_files(report: "Report", written: Sequence[Path]) -> None:
    """Print the files that were written; on stderr which runs are not counted."""
    for path in written:
        out.print(str(path), markup=False)
    _show_excluded(report)


def _show_excluded(report: "Report") -> None:
    from dcft_cli.reporting.notes import excluded_lines

    if lines := excluded_lines(report):
        err.print()
        for line in lines:
            print_note(f"not counted: {line}")


def _fitting(report: "TableReport") -> tuple[Table, list[str]]:
    """Return the table with the columns that fit, and the names of the others."""
    from dcft_cli.reporting.columns import columns

    found = columns(report)
    dropped: list[str] = []
    while True:
        table = _table(report, found)
        if len(found) <= 2 or Measurement.get(out, out.options, table).maximum <= out.width:
            return table, dropped
        least = min(found, key=lambda column: column.importance)
        found.remove(least)
        dropped.append(least.heading)


def _table(report: "TableReport", found: "Sequence[Column]") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(found):
        if number:
            table.add_column(column.heading, justify="right", no_wrap=True)
        else:
            table.add_column(column.heading, max_width=_NAME_WIDTH)
    for number, cells in enumerate(zip(*(column.cells for column in found), strict=True)):
        style = "dim" if number < len(report.baselines) else None
        table.add_row(*map(Text, cells), style=style)
    return table
