"""What benchmarks/learning.csv says: the tables of docs/findings.md, and a figure.

python benchmarks/learning_table.py table
python benchmarks/learning_table.py plot    # docs/findings.svg
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from learning import METHODS, PEER, Row, best_rate, read_rows
from learning_sets import SETS


def chosen_runs(rows: Sequence[Row], encoder: str, name: str, method: str) -> dict[int, Row]:
    """The runs of a method at its best learning rate, by seed; none until all rates are tried."""
    rate = best_rate(rows, encoder, name, method)
    return {
        row.seed: row
        for row in rows
        if (row.encoder, row.set, row.method, row.learning_rate) == (encoder, name, method, rate)
    }


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
    scores = [100 * row.report for row in by_seed.values()]
    if not scores:
        return ""
    rate = next(iter(by_seed.values())).learning_rate
    if len(scores) == 1:
        return f"{scores[0]:.1f} (n = 1, {rate:g})"
    return f"{mean(scores):.1f} ± {stdev(scores):.1f} (n = {len(scores)}, {rate:g})"


def _interval(differences: Sequence[float]) -> str:
    """Mean of paired differences with the 95 % interval of Student's t."""
    if len(differences) < 2:
        return ""
    from scipy.stats import t

    half = t.ppf(0.975, len(differences) - 1) * stdev(differences) / len(differences) ** 0.5
    return f"{mean(differences):+.1f} ± {half:.1f} (n = {len(differences)})"


def plot(path: Path) -> None:
    """Mean score against trained values, one line of markers for each encoder."""
    import matplotlib.pyplot as plt

    rows = read_rows()
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for encoder, marker in (("minilm", "o"), ("base", "s")):
        complete = {
            method: {
                name: runs for name in SETS if (runs := chosen_runs(rows, encoder, name, method))
            }
            for method in METHODS
        }
        complete = {method: found for method, found in complete.items() if found}
        if not complete:
            continue
        shared = set.intersection(*map(set, complete.values()))
        for method, found in complete.items():
            if not shared:
                continue
            scores = [mean(row.report for row in found[name].values()) for name in sorted(shared)]
            trained = next(iter(found[sorted(shared)[0]].values())).trained
            axes.plot(max(trained, 1), 100 * mean(scores), marker, color="tab:blue")
            axes.annotate(method, (max(trained, 1), 100 * mean(scores)), fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("trained values outside the head (log scale)")
    axes.set_ylabel("mean score over the sets that all methods have (higher is better)")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("table", "plot"))
    if parser.parse_args().what == "table":
        table()
    else:
        plot(Path(__file__).parents[1] / "docs" / "findings.svg")


if __name__ == "__main__":
    main()
