"""Plots of runs in the terminal, by plotext."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Group
from rich.constrain import Constrain
from rich.text import Text

from dcft_cli.console.output import out
from dcft_cli.errors import UserError

if TYPE_CHECKING:
    from dcft_cli.runs.curves import Curves, Points

_ROWS = 14
_MAX_WIDTH = 100
_TICKS = 5
_MARKERS = "*+xo#@%&$="  # tell lines apart without colors
# Of plotext with "+", of rich with "bright_".
_COLORS = ("blue", "green", "red", "cyan", "magenta", "yellow")


def show_plots(runs: "Sequence[Curves]") -> None:
    """Print losses, scores, and |dW| of each run by layer.

    Raises:
        UserError: plotext is not installed.
    """
    out.print(_plot("training loss by step", {run.name: run.loss for run in runs}))
    scores = {f"{run.name}: {run.metric}": run.score for run in runs if run.score}
    if scores:
        baselines = runs[0].baselines if len(runs) == 1 else {}
        out.print(_plot("score by step", scores, baselines))
    for run in runs:
        if run.delta_norms:
            out.print(_plot(f"|dW| of {run.name} by layer", run.delta_norms))


def _plot(
    title: str, lines: "Mapping[str, Points]", levels: Mapping[str, float] | None = None
) -> Group:
    try:
        import plotext
    except ImportError as error:
        raise UserError(
            "Plots in the terminal need the package plotext.",
            'Install it: pip install "dcft-cli[plot]"; or write a file: --output curves.png.',
        ) from error
    plotext.clear_figure()
    plotext.theme("pro" if out.is_terminal else "clear")
    width = min(out.width, _MAX_WIDTH)
    plotext.plot_size(width, _ROWS)
    legend = []  # below the plot: plotext would print it over the lines
    for number, (name, points) in enumerate(lines.items()):
        marker, color = _MARKERS[number % len(_MARKERS)], _COLORS[number % len(_COLORS)]
        if len(lines) == 1:
            plotext.plot(*zip(*points, strict=True), marker="braille", color=f"{color}+")
        else:
            dotted = _dotted(points, number, len(lines), width)
            plotext.scatter(*zip(*dotted, strict=True), marker=marker, color=f"{color}+")
            name = f"{marker} {name}"
        legend.append(Text(name, style=f"bright_{color}"))
    positions = sorted({x for points in lines.values() for x, _ in points})
    plotext.xticks(positions[:: -(-len(positions) // _TICKS)])
    if levels:
        title += f" ({', '.join(f'{name} {level:.4f}' for name, level in levels.items())})"
    plotext.title(title)
    names = Constrain(Columns(legend, padding=(0, 3)), width)
    return Group(Text.from_ansi(plotext.build().rstrip("\n")), names, "")


def _dotted(points: "Points", number: int, lines: int, columns: int) -> "Points":
    """Return places on a line, in each column that is its turn: equal lines alternate."""
    from numpy import interp

    x, y = zip(*points, strict=True)
    places = [x[0] + (x[-1] - x[0]) * n / columns for n in range(number, columns, lines)]
    return list(zip(places, interp(places, x, y).tolist(), strict=True))
