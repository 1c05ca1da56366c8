"""Figures of runs as PNG, SVG or HTML, by matplotlib."""

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dcft_cli.atomic import atomic_path
from dcft_cli.errors import UserError
from dcft_cli.outputs import check_file
from dcft_cli.runs.curves import Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".html")

# Colors that readers with any color vision can tell apart (Okabe and Ito 2008).
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_GRAY = "#6e7781"
_PANEL = (4.6, 3.0)  # inches
_COLUMNS = 2
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "dcft",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#d0d7de",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
}


def write_figure(runs: Sequence[Curves], output: Path) -> None:
    """Write a figure: losses, scores, and a panel of |dW| for each run.

    Args:
        output: file; its ending decides the format.

    Raises:
        UserError: another ending, a file that cannot be written, or no matplotlib.
    """
    check_file(output)
    ending = output.suffix.lower()
    if ending not in ENDINGS:
        raise UserError(
            f"{output}: a figure is written as {', '.join(ENDINGS)}.", "Change the file's ending."
        )
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise UserError(
            "Figures need the package matplotlib.", 'Install it: pip install "dcft-cli[plot]".'
        ) from error
    written = io.BytesIO()
    with rc_context(_STYLE):
        _figure(runs).savefig(
            written,
            format="svg" if ending == ".html" else ending[1:],
            dpi=150,
            # The same runs give the same file.
            metadata={"Software": None} if ending == ".png" else {"Date": None},
        )
    content = written.getvalue()
    if ending == ".html":
        content = _page(runs, content.decode()).encode()
    with atomic_path(output) as path:
        path.write_bytes(content)


def _figure(runs: Sequence[Curves]) -> "Figure":
    from matplotlib.figure import Figure

    adapters = [run for run in runs if run.delta_norms]
    has_scores = any(run.score for run in runs)
    panels = 1 + has_scores + len(adapters)
    columns = min(panels, _COLUMNS)
    rows = -(-panels // columns)
    figure = Figure((columns * _PANEL[0], rows * _PANEL[1]), layout="constrained")
    axes = iter(figure.subplots(rows, columns, squeeze=False).flat)
    _draw_losses(next(axes), runs)
    if has_scores:
        _draw_scores(next(axes), runs)
    for run in adapters:
        _draw_norms(next(axes), run, title=len(runs) > 1)
    for unused in axes:
        unused.set_axis_off()
    return figure


def _draw_losses(axes: "Axes", runs: Sequence[Curves]) -> None:
    for run, color in zip(runs, _cycle(len(runs)), strict=True):
        axes.plot(*zip(*run.loss, strict=True), color=color, label=run.name)
    axes.set(title="training loss", xlabel="step")
    if len(runs) > 1:
        axes.legend()


def _draw_scores(axes: "Axes", runs: Sequence[Curves]) -> None:
    metrics = list(dict.fromkeys(run.metric for run in runs if run.score))
    for run, color in zip(runs, _cycle(len(runs)), strict=True):
        if run.score:
            label = run.name if len(metrics) == 1 else f"{run.name}: {run.metric}"
            axes.plot(*zip(*run.score, strict=True), color=color, marker="o", ms=3, label=label)
    if len(runs) == 1:
        (run,) = runs
        for (name, score), dashes in zip(run.baselines.items(), ("--", ":", "-."), strict=False):
            axes.axhline(score, color=_GRAY, linestyle=dashes, linewidth=1, label=name)
    axes.set(title=", ".join(metrics), xlabel="step")
    axes.legend()


def _draw_norms(axes: "Axes", run: Curves, *, title: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    for (role, points), color in zip(
        run.delta_norms.items(), _cycle(len(run.delta_norms)), strict=True
    ):
        axes.plot(*zip(*points, strict=True), color=color, marker="o", ms=3, label=role)
    axes.set(title="|dW|" + (f" of {run.name}" if title else ""), xlabel="layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.legend(ncols=2)


def _cycle(count: int) -> list[str]:
    return [_COLORS[number % len(_COLORS)] for number in range(count)]


def _page(runs: Sequence[Curves], svg: str) -> str:
    title = html.escape(", ".join(run.name for run in runs))
    image = svg[svg.index("<svg") :].replace("<svg ", '<svg style="max-width:100%;height:auto" ', 1)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n</head>\n"
        '<body style="margin:1rem auto;max-width:72rem;font-family:sans-serif">\n'
        f"<h1>{title}</h1>\n{image}\n</body>\n</html>\n"
    )
