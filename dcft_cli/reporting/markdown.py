"""A report as Markdown."""

from collections.abc import Iterator

from dcft_cli.reporting.columns import columns
from dcft_cli.reporting.notes import excluded_lines, reading, table_notes
from dcft_cli.reporting.report import Report, TableReport


def to_markdown(report: Report) -> str:
    """Return the tables with their notes, and the runs that are not counted."""
    parts = [part for table in report.tables for part in _table(table)]
    parts.append("\n".join(f"- {line}" for line in reading()))
    if lines := excluded_lines(report):
        parts += ["Not counted:", "\n".join(f"- {_escaped(line)}" for line in lines)]
    return "\n\n".join(parts) + "\n"


def _table(report: TableReport) -> Iterator[str]:
    yield f"## {_escaped(report.title)}: {report.metric}"
    first, *others = columns(report)
    head = [first.heading, *(column.heading for column in others)]
    rows = zip(*(column.cells for column in (first, *others)), strict=True)
    lines = [head, ["---", *["---:"] * len(others)], *map(list, rows)]
    yield "\n".join(f"| {' | '.join(map(_escaped, cells))} |" for cells in lines)
    if notes := list(table_notes(report)):
        yield "\n".join(f"- {_escaped(note)}" for note in notes)


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")
