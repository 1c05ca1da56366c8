"""Figures of a table of runs, as SVG for a page with light and dark colors."""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill
from typing import TYPE_CHECKING, Any

from dcft_cli.errors import UserError
from dcft_cli.reporting.curves import Curve, curve
from dcft_cli.reporting.report import Row, TableReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn with these, written as CSS variables that a page may define; without one they hold.
_INK, _GRID = "#1f2328", "#d0d7de"
SERIES = (
    "#0072b2", "#d55e00", "#009e73", "#b0508c", "#8a6d00", "#5b3fa0", "#6e7781", "#a40e26",
)  # fmt: skip
_VARIABLES = {_INK: "ink", _GRID: "grid"} | {c: f"c{n}" for n, c in enumerate(SERIES, start=1)}
_MARKERS = "osD^vPX*"
_WIDTH, _HEIGHT = 4.0, 2.8  # inches: a phone's width at the size of its text
_FITTED_HEAD = "fitted head"
_ROW = 0.2  # inches of a line of a legend, or of half a bar
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "dcft",
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # a pattern of layer names may have dollar signs
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "axes.axisbelow": True,
    "axes.prop_cycle": f"cycler('color', {list(SERIES)})",  # no other color anywhere
}


@dataclass(frozen=True)
class Drawing:
    """A figure as the text of an SVG element, with a caption."""

    caption: str
    svg: str


def draw(report: TableReport, prefix: str) -> list[Drawing]:
    """Draw score against trained values, learning curves, and time by method.

    Args:
        prefix: unique in the page; ids in the SVG begin with it.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise UserError(
            "The figures of --html need the package matplotlib.",
            'Install it: pip install "dcft-cli[plot]"; --markdown and --csv need no figures.',
        ) from error
    better = "" if report.greater_is_better else ", lower is better"
    error_bars = "Bars show the standard deviation over seeds."
    captions = {
        _sizes: f"{report.metric}{better} (best) against trained adapter values, on a log scale. "
        f"The line is the Pareto front: no group scores better with fewer values. {error_bars}",
        _curves: f"{report.metric}{better} by optimizer step: mean over seeds; the band is one "
        "standard deviation to each side.",
        _times: f"Time of a run in {_unit(report)[0]}: mean over seeds. {error_bars}",
    }
    drawings = []
    with rc_context(_STYLE):
        for number, (draw_one, caption) in enumerate(captions.items()):
            figure = draw_one(report)
            if figure is not None:
                drawings.append(Drawing(caption, _svg(figure, f"{prefix}{number}-", caption)))
    return drawings


def pareto(report: TableReport) -> list[Row]:
    """Return the rows that no other one beats with as few trained values, smallest first."""
    sign = 1 if report.greater_is_better else -1
    front: list[Row] = []
    for row in sorted(report.rows, key=lambda row: (row.adapter.mean, -sign * row.best.mean)):
        if not front or sign * row.best.mean > sign * front[-1].best.mean:
            front.append(row)
    return front


def _sizes(report: TableReport) -> "Figure":
    figure, axes = _figure([_label(row) for row in report.rows])
    for row, color, marker in _styles(report.rows):
        if row.adapter.mean == 0:  # only a head: no place on a log scale
            axes.axhline(row.best.mean, color=color, linestyle=":", label=_label(row))
            continue
        axes.errorbar(
            row.adapter.mean, row.best.mean, yerr=row.best.sd, color=color, marker=marker,
            linestyle="none", capsize=3, label=_label(row),
        )  # fmt: skip
    front = [(row.adapter.mean, row.best.mean) for row in pareto(report) if row.adapter.mean]
    axes.plot(*zip(*front, strict=True), color=_INK, linewidth=1, zorder=1, drawstyle="steps-post")
    axes.set(xlabel="trained adapter values", title=report.metric)
    _log_ticks(axes, [row.adapter.mean for row in report.rows if row.adapter.mean])
    _legend(figure)
    return figure


def _curves(report: TableReport) -> "Figure | None":
    found = [(style, curve(style[0].group.runs.values())) for style in _styles(report.rows)]
    drawn: list[tuple[tuple[Row, str, str], Curve]] = [(s, c) for s, c in found if c is not None]
    if not drawn:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure([_FITTED_HEAD, *(_label(row) for (row, _, _), _ in drawn)])
    for (row, color, marker), found_curve in drawn:
        steps, mean, sd = found_curve.steps, found_curve.mean, found_curve.sd
        axes.plot(steps, mean, color=color, marker=marker, ms=4, linewidth=1.5, label=_label(row))
        axes.fill_between(steps, mean - sd, mean + sd, color=color, alpha=0.15, linewidth=0)
    if (head := report.baselines.get(_FITTED_HEAD)) is not None:
        axes.axhline(head.mean, color=_INK, linestyle="--", linewidth=1, label=_FITTED_HEAD)
    axes.set(xlabel="step", title=report.metric)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    _legend(figure)
    return figure


def _times(report: TableReport) -> "Figure":
    from matplotlib.figure import Figure

    unit, seconds = _unit(report)
    labels = [fill(row.group.name, 20) for row in report.rows]
    height = 0.8 + 0.9 * _ROW * (_lines(labels) + len(labels))
    figure = Figure((_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    for place, (row, color, _) in enumerate(_styles(report.rows)):
        time, sd = row.seconds.mean / seconds, row.seconds.sd
        error = None if sd is None else sd / seconds
        axes.barh(place, time, color=color, height=0.6, xerr=error, ecolor=_INK, capsize=3)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlabel=unit)
    return figure


def _figure(legend: Sequence[str]) -> "tuple[Figure, Axes]":
    """Return a figure with room for the lines of its legend."""
    from matplotlib.figure import Figure

    figure = Figure((_WIDTH, _HEIGHT + _lines(legend) * _ROW), layout="constrained")
    return figure, figure.subplots()


def _styles(rows: Sequence[Row]) -> Iterator[tuple[Row, str, str]]:
    """Yield each row with a color and a marker; no two of the first 64 have both the same."""
    for number, row in enumerate(rows):
        turn, place = divmod(number, len(SERIES))
        yield row, SERIES[place], _MARKERS[(place + turn) % len(_MARKERS)]


def _lines(labels: Sequence[str]) -> int:
    return sum(label.count("\n") + 1 for label in labels)


def _label(row: Row) -> str:
    return fill(row.group.name, 44)


def _legend(figure: "Figure") -> None:
    figure.legend(loc="outside lower left", handlelength=1.6, labelspacing=0.4)


def _log_ticks(axes: "Axes", values: Sequence[float]) -> None:
    """Set a log scale with a few plain numbers on it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    if values:
        axes.set_xlim(min(values) / 1.6, max(values) * 1.6)
    wide = bool(values) and max(values) / min(values) > 100
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _unit(report: TableReport) -> tuple[str, int]:
    """Return the unit of the longest time, and its seconds."""
    longest = max(row.seconds.mean for row in report.rows)
    for unit, seconds in (("hours", 3600), ("minutes", 60)):
        if longest >= 2 * seconds:
            return unit, seconds
    return "seconds", 1


def _svg(figure: "Figure", prefix: str, caption: str) -> str:
    """Return a figure as an SVG element that neither names nor loads anything outside itself."""
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    # Several figures in one page have ids of their own.
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(href="|url\()#', rf"\g<1>#{prefix}", svg)
    for color, name in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{name}, {color})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(caption)}" ', 1)
