"""What benchmarks/learning.csv says: the tables of docs/findings.md, and a figure.

python benchmarks/learning_table.py table
python benchmarks/learning_table.py rates
python benchmarks/learning_table.py plot    # docs/findings.svg
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from learning import METHODS, PEER, SEEDS, Row, best_rate, read_rows
from learning_sets import SETS


def chosen_runs(rows: Sequence[Row], encoder: str, name: str, method: str) -> dict[int, Row]:
    """The runs of a method at its best learning rate, by seed; none until all have been run."""
    rate = best_rate(rows, encoder, name, method)
    found = {
        row.seed: row
        for row in rows
        if (row.encoder, row.set, row.method, row.learning_rate) == (encoder, name, method, rate)
    }
    return found if len(found) == len(SEEDS) else {}


def table() -> None:
    """Scores of every method on every set, and the paired difference to LoRA."""
    rows = read_rows()
    for encoder in ("minilm", "base"):
        sets = [name for name in SETS if any((r.encoder, r.set) == (encoder, name) for r in rows)]
        if not sets:
            continue
        print(
            f"\n{encoder}\n\n| method | trained | {' | '.join(sets)} | difference to LoRA r = 1 |"
        )
        print(f"|---|---:|{'---|' * len(sets)}---|")
        for method in METHODS:
            found = {name: chosen_runs(rows, encoder, name, method) for name in sets}
            runs = [row for by_seed in found.values() for row in by_seed.values()]
            if not runs:
                continue
            cells = [_mean_and_deviation(found[name]) for name in sets]
            peer = {name: chosen_runs(rows, encoder, name, PEER) for name in sets}
            differences = [
                100 * (row.report - peer[name][seed].report)
                for name in sets
                for seed, row in found[name].items()
                if seed in peer[name]
            ]
            print(
                f"| {method} | {runs[0].trained:,} | {' | '.join(cells)} | "
                f"{_interval(differences) if method != PEER else ''} |"
            )


def _mean_and_deviation(by_seed: dict[int, Row]) -> str:
    if not by_seed:
        return ""
    scores = [100 * row.report for row in by_seed.values()]
    rate = next(iter(by_seed.values())).learning_rate
    return f"{mean(scores):.1f} ± {stdev(scores):.1f} ({rate:g})"


def _interval(differences: Sequence[float]) -> str:
    """Mean of paired differences with the 95 % interval of Student's t."""
    if not differences:
        return ""
    from scipy.stats import t

    half = t.ppf(0.975, len(differences) - 1) * stdev(differences) / len(differences) ** 0.5
    return f"{mean(differences):+.1f} ± {half:.1f} (n = {len(differences)})"


def rates() -> None:
    """Mean score over the sets by learning rate, first seed, all validation rows."""
    rows = [row for row in read_rows() if row.seed == SEEDS[0]]
    for encoder in ("minilm", "base"):
        sets = {row.set for row in rows if row.encoder == encoder}
        print(f"\n{encoder}, mean of {len(sets)} sets\n")
        for method, (tried, _) in METHODS.items():
            cells = []
            for rate in tried:
                key = (encoder, method, rate)
                scores = [
                    50 * (row.choose + row.report)
                    for row in rows
                    if (row.encoder, row.method, row.learning_rate) == key
                ]
                if len(scores) == len(sets):
                    cells.append(f"{mean(scores):.1f} ({rate:g})")
            if len(cells) == len(tried):
                print(f"| {method} | {' | '.join(cells)} |")


# Marker and color of a method in the figure; the starts of one adapter share a color.
MARKS = {
    "dcft gradient": ("o", "tab:blue"),
    "dcft zero": ("^", "tab:blue"),
    "dcft normal": ("v", "tab:blue"),
    "dcft d=2": ("D", "tab:cyan"),
    "lokr r=1": ("x", "tab:green"),
    "lora r=1": ("s", "tab:orange"),
    "lora r=8": ("s", "tab:red"),
    "full": ("*", "black"),
}


def plot(path: Path) -> None:
    """Draw the mean score over the sets that all methods have against the trained values."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "dcft"  # the same rows give the same file
    rows = read_rows()
    names = {"minilm": "MiniLM, 6 layers, 384 wide", "base": "MPNet, 12 layers, 768 wide"}
    figure, panels = plt.subplots(1, len(names), figsize=(9, 4), layout="constrained")
    for axes, (encoder, name) in zip(panels, names.items(), strict=True):
        found = {
            (method, one): chosen_runs(rows, encoder, one, method)
            for method in METHODS
            for one in SETS
        }
        sets = [one for one in SETS if all(found[m, one] for m in METHODS)]
        scores = {
            method: mean(
                100 * mean(row.report for row in found[method, one].values()) for one in sets
            )
            for method in METHODS
        }
        for method, (marker, color) in MARKS.items():
            trained = next(iter(found[method, sets[0]].values())).trained
            axes.scatter(trained, scores[method], s=50, marker=marker, color=color, label=method)
        axes.set_xscale("log")
        axes.set_title(f"{name}\n{len(sets)} sets (head only: {scores['head']:.1f})", fontsize=10)
        axes.grid(alpha=0.3)
    figure.supxlabel("trained values outside the head (log scale)", fontsize=10)
    figure.supylabel("mean score x 100 (higher is better)", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("table", "rates", "plot"))
    what = parser.parse_args().what
    if what == "table":
        table()
    elif what == "rates":
        rates()
    else:
        plot(Path(__file__).parents[1] / "docs" / "findings.svg")


if __name__ == "__main__":
    main()
