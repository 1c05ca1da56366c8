"""A table's cells as text, the same for terminal, Markdown and HTML."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dcft_cli.reporting.published import Comparison
from dcft_cli.reporting.report import Row, TableReport
from dcft_cli.reporting.statistics import Difference, Summary

DIFFERENCE, LAST_DIFFERENCE = "difference (best)", "difference (last)"


@dataclass(frozen=True)
class Column:
    """A column: its heading, and a cell for each baseline and then each group.

    Attributes:
        importance: where the width is limited, columns with the lowest are left out first.
    """

    heading: str
    importance: int
    cells: tuple[str, ...]


def columns(report: TableReport) -> list[Column]:
    """Return the columns that have a value, in their order; the first one names the rows."""
    baselines = list(report.baselines.items())
    rows = report.rows

    def column(
        heading: str,
        importance: int,
        cell: Callable[[Row], str],
        baseline: Sequence[str] | None = None,
    ) -> Column:
        blank = [""] * len(baselines)
        return Column(heading, importance, (*(baseline or blank), *map(cell, rows)))

    scores = [score(summary) for _, summary in baselines]
    found = [
        column("method", 10, lambda row: row.group.name, [name for name, _ in baselines]),
        column("n", 8, lambda row: str(row.best.n), [str(s.n) for _, s in baselines]),
        column("best", 9, lambda row: score(row.best), scores),
        column("last", 5, lambda row: score(row.last)),
        column(DIFFERENCE, 7, lambda row: _difference(row, report, row.difference)),
        column("published", 5, lambda row: published_text(row.published)),
        column("adapter", 6, lambda row: count(row.adapter)),
        column("head", 1, lambda row: count(row.head)),
        column("stored", 2, lambda row: size(row.stored)),
        column("time", 4, lambda row: duration(row.seconds)),
        column("memory", 3, lambda row: size(row.memory)),
        column(LAST_DIFFERENCE, 0, lambda row: _difference(row, report, row.last_difference)),
    ]
    compared = len(rows) > 1
    return [
        c
        for c in found
        if any(c.cells) and (compared or c.heading not in (DIFFERENCE, LAST_DIFFERENCE))
    ]


def score(summary: Summary) -> str:
    """Return mean and standard deviation of a score."""
    spread = "" if summary.sd is None else f" ± {summary.sd:.4f}"
    return f"{summary.mean:.4f}{spread}"


def _difference(row: Row, report: TableReport, difference: Difference | None) -> str:
    if row.group.name == report.reference:
        return "reference"
    if difference is None:
        return "no seed in common"
    mean = f"{difference.mean:+z.4f}"
    if difference.half is None:
        return f"{mean} (n = 1: no interval)"
    low, high = difference.mean - difference.half, difference.mean + difference.half
    return f"{mean} [{low:+z.4f}, {high:+z.4f}]"


def published_text(comparison: Comparison) -> str:
    """Return the published scores on the scale of the others, each with its tables."""
    tables: dict[str, list[str]] = {}
    for number in comparison.numbers:
        tables.setdefault(f"{number.fraction:.4f}", []).append(
            number.experiment.removeprefix("Table ")
        )
    return "; ".join(
        f"{value} (Table{'s' if len(names) > 1 else ''} {', '.join(names)})"
        for value, names in tables.items()
    )


def count(summary: Summary) -> str:
    """Return a number of values; the mean over seeds if they differ."""
    return f"{summary.mean:,.0f}"


def size(summary: Summary | None) -> str:
    """Return a number of bytes in decimal units; "" if it is not known."""
    if summary is None:
        return ""
    value = summary.mean
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def duration(summary: Summary) -> str:
    """Return a mean time in seconds, minutes or hours."""
    seconds = summary.mean
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
