"""Plots of runs in the terminal, by plotext."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from dcft_cli.console.output import out
from dcft_cli.errors import UserError

if TYPE_CHECKING:
    from dcft_cli.runs.curves import Curves, Points

_ROWS = 14
_MAX_WIDTH = 100
_TICKS = 5
_MARKERS = ("braille", "*", "+", "x", "o", "#")  # tell lines apart without colors


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
) -> Text:
    try:
        import plotext
    except ImportError as error:
        raise UserError(
            "Plots in the terminal need the package plotext.",
            'Install it: pip install "dcft-cli[plot]"; or write a file: --output curves.png.',
        ) from error
    plotext.clear_figure()
    plotext.theme("pro" if out.is_terminal else "clear")
    plotext.plot_size(min(out.width, _MAX_WIDTH), _ROWS)
    for number, (name, points) in enumerate(lines.items()):
        x, y = zip(*points, strict=True)
        marker = "braille" if out.is_terminal else _MARKERS[number % len(_MARKERS)]
        plotext.plot(x, y, label=name, marker=marker)
    positions = sorted({x for points in lines.values() for x, _ in points})
    plotext.xticks(positions[:: -(-len(positions) // _TICKS)])
    if levels:
        title += f" ({', '.join(f'{name} {level:.4f}' for name, level in levels.items())})"
    plotext.title(title)
    return Text.from_ansi(plotext.build())
