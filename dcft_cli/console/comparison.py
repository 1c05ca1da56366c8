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

_UNLIMITED = 10_000  # columns: no table is as wide


def show_comparison(report: "Report") -> None:
    """Print all tables with their notes; on stderr which runs are not counted."""
    from dcft_cli.reporting.notes import BRIEFLY, PUBLISHED, table_notes

    for number, table in enumerate(report.tables):
        if number:
            out.print()
        out.print(
            Text(f"{table.title}: {table.metric}", style="bold"), soft_wrap=not out.is_terminal
        )
        shown, left_out = _fitting(table)
        out.print(shown)
        notes = [n for n in table_notes(table) if n != PUBLISHED or "published" not in left_out]
        if left_out:
            notes.append(
                f"Not shown at this width: {', '.join(left_out)} (see --html, --markdown)."
            )
        for note in notes:
            out.print(Text(note, style="dim"), soft_wrap=not out.is_terminal)
    out.print()
    out.print(Text(BRIEFLY, style="dim"), soft_wrap=not out.is_terminal)
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
    """Return the table with the columns that fit, and the headings of the others.

    The most important columns come first; a narrow one may fit where a wide one does not.
    """
    from dcft_cli.reporting.columns import columns

    found = columns(report)
    unlimited = out.options.update(max_width=_UNLIMITED)
    shown: list[Column] = []
    for column in sorted(found, key=lambda column: -column.importance):
        wider = [c for c in found if c in shown or c is column]
        if Measurement.get(out, unlimited, _table(report, wider)).maximum <= out.width:
            shown = wider
    return _table(report, shown), [c.heading for c in found if c not in shown]


def _table(report: "TableReport", found: "Sequence[Column]") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(found):
        if number:
            table.add_column(column.heading, justify="right", no_wrap=True)
        else:
            table.add_column(column.heading, max_width=out.width // 4)
    for number, cells in enumerate(zip(*(column.cells for column in found), strict=True)):
        style = "dim" if number < len(report.baselines) else None
        table.add_row(*map(Text, cells), style=style)
    return table
