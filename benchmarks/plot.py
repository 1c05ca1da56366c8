"""One figure from what step_time.py and memory.py print: each variant against the frozen model.

    python benchmarks/step_time.py minilm | tee time.json
    python benchmarks/memory.py minilm | tee memory.json
    python benchmarks/plot.py time.json memory.json --output step.svg

Takes any number of files; a panel for each model and measure. Needs matplotlib. The ending of
the output decides its format.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MODELS = {"minilm": "MiniLM", "deberta-v3-base": "DeBERTaV3-base", "roberta-large": "RoBERTa-large"}
SAME = "frozen, accelerated"  # with the same products and attention as DCFT has
LABELS = {  # from top to bottom: like with like first
    SAME: "frozen, same products and attention",
    "dcft d8": "DCFT, d = 8",
    "dcft d8, plain": "DCFT, d = 8, acceleration off",
    "peft lora r1": "LoRA, r = 1",
    "peft lora r8": "LoRA, r = 8",
    "full": "full fine-tuning",
    "dcft d2": "DCFT, d = 2",
    "dcft d8 s4": "DCFT, d = 8, s = 4",
    "dcft d8 s1": "DCFT, d = 8, s = 1",
    "dcft d8 on Q, V": "DCFT, d = 8, on Q and V",
    "dcft d8 materialized": "as published, d = 8",
    "dcft d8 s1 materialized": "as published, d = 8, s = 1",
    "peft lora r1 on Q, V": "LoRA, r = 1, on Q and V",
    "peft lokr r8": "LoKr, r = 8",
}
OURS, OTHERS, TEXT = "#0969da", "#afb8c1", "#1f2328"
MUTED = "#59636e"
FROZEN = "frozen"  # the reference, by its name in variants.py
MEASURES = ("time of a step", "peak memory")
ROW, PANEL, LABELS_WIDTH = 0.27, 3.9, 2.4  # inches


@dataclass(frozen=True)
class Panel:
    """One measure of one model.

    Attributes:
        settings: shape of a batch, precision and device, for the reader.
        ratios: to the frozen model, by variant.
    """

    model: str
    measure: str
    settings: str
    ratios: dict[str, float]


def read(path: Path, variants: Sequence[str] | None) -> list[Panel]:
    """Return the panels of the JSON lines in a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    panels = [_panel(json.loads(line), variants) for line in lines if line.startswith("{")]
    return [panel for panel in panels if panel.ratios]


def _panel(record: dict[str, Any], variants: Sequence[str] | None) -> Panel:
    if "bytes" in record:
        measure = MEASURES[1]
        sizes = {name: statistics.median(peaks) for name, peaks in record["bytes"].items()}
        ratios = {name: size / sizes[FROZEN] for name, size in sizes.items()}
    else:
        measure, ratios = MEASURES[0], {row["variant"]: row["ratio"] for row in record["rows"]}
    wanted = set(variants or ratios) - {FROZEN}
    return Panel(
        record["model"],
        measure,
        settings="batch {batch} x {length}, {precision}, {device}".format(**record),
        ratios={name: ratio for name, ratio in ratios.items() if name in wanted},
    )


def draw(axes: Axes, panel: Panel, names: list[str], longest: float) -> None:
    """Draw bars from zero, and a line at the frozen model.

    Args:
        names: from top to bottom; one that was not measured has no bar.
        longest: largest ratio of all panels.
    """
    axes.set_title(
        f"{MODELS.get(panel.model, panel.model)}: {panel.measure}",
        loc="left", pad=20, fontsize=10, fontweight="bold", color=TEXT,
    )  # fmt: skip
    axes.annotate(
        panel.settings, (0, 1), (0, 7), xycoords="axes fraction", textcoords="offset points",
        fontsize=8, color=MUTED,
    )  # fmt: skip
    for place, name in enumerate(names):
        if name not in panel.ratios:
            continue
        ratio = panel.ratios[name]
        # What forms dW is DCFT's arithmetic, but not this package's.
        ours = name.startswith("dcft") and not name.endswith("materialized")
        axes.barh(place, ratio, height=0.62, color=OURS if ours else OTHERS)
        text = f"{ratio:.2f}"
        if name == "dcft d8" and SAME in panel.ratios:
            text += f" ({ratio / panel.ratios[SAME]:.2f} x the bar above)"
        axes.annotate(
            text, (max(ratio, 1), place), (5, 0), textcoords="offset points",
            va="center", fontsize=8.5, color=OURS if ours else TEXT,
            fontweight="bold" if ours else "normal",
        )  # fmt: skip
    axes.axvline(1, color=TEXT, linewidth=1)
    axes.set_xlim(0, 1.8 * longest)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [LABELS.get(name, name) for name in names], fontsize=8.5)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=8, color=MUTED)
    axes.set_xlabel("relative to the stock frozen model (lower is better)",
                    loc="left", fontsize=8, color=MUTED)  # fmt: skip
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def figure(panels: list[Panel]) -> Figure:
    models = list(dict.fromkeys(panel.model for panel in panels))
    measures = [m for m in MEASURES if any(panel.measure == m for panel in panels)]
    found: dict[tuple[str, str], Panel] = {}
    for panel in panels:  # a measure may come from several files
        key = panel.model, panel.measure
        known = found[key].ratios if key in found else {}
        found[key] = replace(panel, ratios=known | panel.ratios)
    rows = {}
    for model in models:
        panels_of_model = [found[model, m] for m in measures if (model, m) in found]
        measured = {name for panel in panels_of_model for name in panel.ratios}
        rows[model] = [name for name in LABELS if name in measured]
    # One scale for all models.
    longest = {m: max(1.0, *(r for p in panels if p.measure == m for r in p.ratios.values()))
               for m in measures}  # fmt: skip
    heights = [ROW * len(names) for names in rows.values()]
    size = (LABELS_WIDTH + PANEL * len(measures), sum(heights) + 1.1 * len(models))
    drawn = Figure(size, layout="constrained", facecolor="white")
    drawn.get_layout_engine().set(h_pad=0.1)
    grid = drawn.subplots(
        len(models), len(measures), squeeze=False, height_ratios=heights, sharey="row"
    )
    for row, model in zip(grid, models, strict=True):
        for axes, measure in zip(row, measures, strict=True):
            if (model, measure) in found:
                draw(axes, found[model, measure], rows[model], longest[measure])
            else:
                axes.set_axis_off()
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="what step_time.py and memory.py said")
    parser.add_argument("--variants", nargs="*", help="only these")
    parser.add_argument("--output", type=Path, required=True, help="svg or png")
    args = parser.parse_args()
    panels = [panel for path in args.files for panel in read(path, args.variants)]
    if not panels:
        parser.error("no figures of these variants in the files")
    # The same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "dcft"
    dated = {"metadata": {"Date": None}} if args.output.suffix == ".svg" else {}
    figure(panels).savefig(args.output, dpi=200, **dated)


if __name__ == "__main__":
    main()
