"""Recipes of the required keys alone, on real data: what the defaults reach, and what moves them.

    python benchmarks/defaults.py run --data GLUE --addresses DATA
    python benchmarks/defaults.py table

`run` trains every cell that benchmarks/defaults.csv lacks by `dcft train`'s own functions, and
adds a row for each; GLUE and DATA are those of benchmarks/learning.py. Start it again to go on.
The encoder is the packaged MiniLM. Validation rows are scored whole.
"""

import argparse
import csv
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from learning import MINILM, append_row, claim, claimed, locked
from learning_sets import words

RESULTS = Path(__file__).parent / "defaults.csv"
SEEDS = (1, 2, 3)
TASKS = {
    "sst2-2000": {"name": "sst2"},
    "titles-300": {"type": "classification"},  # 8 classes
    "address-words-300": {"type": "token_classification"},
    "sst2-300": {"name": "sst2"},
    "words": {"type": "regression"},
    "stsb-2000": {"name": "stsb"},
    "mrpc-2000": {"name": "mrpc"},
    "cola-2000": {"name": "cola"},
}
COLUMNS: dict[str, dict[str, str]] = {
    "titles-300": {"text": "question", "label": "title"},
    "words": {"text": "word", "label": "rating"},
}
# What is changed, and where it is tried. `HEAD_SHARE` is no setting: the share of the fitted head
# that training starts with.
CHANGES = {
    "": tuple(name for name in TASKS if name != "words"),
    "training.epochs=1": ("words",),
    "training.epochs=1 HEAD_SHARE=1": ("words",),
    "training.epochs=1 HEAD_SHARE=0.3": ("words",),
    "training.epochs=1 training.fit_head=off": ("words",),
    "training.learning_rate=1.67e-3": ("sst2-2000",),
    "training.learning_rate=1.5e-2": ("sst2-2000",),
    "training.fit_head=off adapter.init=normal": ("sst2-2000",),
    "adapter.init=normal": ("sst2-2000",),
    "adapter.init=zero": tuple(name for name in TASKS if name != "words"),
    "training.learning_rate=1.5e-2 adapter.init=zero": ("sst2-2000",),
    "training.epochs=1 adapter.init=zero": ("words",),
    "training.fit_head=off": ("sst2-2000",),
    "HEAD_SHARE=1": ("sst2-2000",),
    "adapter.orthogonality=0.1": ("sst2-2000",),
    "adapter.scale=1": ("sst2-2000",),
    "adapter.scale=16": ("sst2-2000",),
}


@dataclass(frozen=True)
class Row:
    """A run: its main scores, and what it was."""

    set: str
    change: str
    seed: int
    metric: str
    constant: float
    fitted_head: float | None
    best: float
    last: float
    steps: int
    weight_change: float
    seconds: float
    alarm: str


def cells() -> Iterator[tuple[str, str, int]]:
    for change, sets in CHANGES.items():
        for name in sets:
            for seed in SEEDS:
                yield name, change, seed


def write_data(place: Path, data: Path, addresses: Path) -> None:
    """train and dev of every set; the titles are those of SQuAD v2.0's articles."""
    for name in ("sst2-300", "sst2-2000", "stsb-2000", "mrpc-2000", "cola-2000"):
        task, _, count = name.partition("-")
        lines = (data / task / "train.jsonl").read_text("utf-8").splitlines(keepends=True)
        _write(place / name / "train.jsonl", lines[: int(count)])
        _write(place / name / "dev.jsonl", [(data / task / "validation.jsonl").read_text("utf-8")])
    questions = [
        json.dumps({key: json.loads(line)[key] for key in ("question", "title")}) + "\n"
        for line in (data / "squad_v2/train.jsonl").read_text("utf-8").splitlines()
    ]
    random.Random(0).shuffle(questions)
    _write(place / "titles-300/train.jsonl", questions[:300])
    _write(place / "titles-300/dev.jsonl", questions[300:1100])
    for part, rows in zip(("train", "dev"), words(), strict=True):
        _write(place / f"words/{part}.jsonl", rows)
    train, dev = (
        (addresses / f"address-{part}.conll").read_text("utf-8").strip().split("\n\n")
        for part in ("train", "dev")
    )
    known = _tags(train[:300])
    _write(place / "address-words-300/train.conll", [f"{block}\n\n" for block in train[:300]])
    kept = [f"{block}\n\n" for block in dev if _tags([block]) <= known]
    _write(place / "address-words-300/dev.conll", kept)


def _tags(blocks: Sequence[str]) -> set[str]:
    return {line.split("\t")[1] for block in blocks for line in block.splitlines()}


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), "utf-8")


def run_cell(name: str, change: str, seed: int, place: Path) -> Row:
    from dcft_cli.recipe import recipe_from_mapping
    from dcft_cli.recipe.loading import LoadedRecipe
    from dcft_cli.runs import start
    from dcft_cli.runs.plan import plan_training
    from dcft_cli.runs.train import train
    from dcft_cli.training.reporting import Reporter

    *overrides, share = [*change.split(), f"HEAD_SHARE={start.HEAD_SHARE}"]
    if overrides and overrides[-1].startswith("HEAD_SHARE="):
        share = overrides.pop()
    start.HEAD_SHARE = float(share.partition("=")[2])
    ending = "conll" if name.startswith("address") else "jsonl"
    recipe = recipe_from_mapping(
        {
            "model": {"name": MINILM},
            "task": TASKS[name],
            "data": {
                "train": str(place / name / f"train.{ending}"),
                "validation": str(place / name / f"dev.{ending}"),
                **COLUMNS.get(name, {}),
            },
        },
        name,
        [*overrides, f"training.seed={seed}"],
    )
    with tempfile.TemporaryDirectory() as scratch:
        plan = plan_training(LoadedRecipe(recipe, name, Path(scratch)), output=f"{scratch}/run")
        metrics: dict[str, Any] = train(plan, Reporter()).metrics
    metric, baselines = metrics["main_metric"], metrics["baselines"]
    return Row(
        set=name,
        change=change,
        seed=seed,
        metric=metric,
        constant=baselines["constant"][metric],
        fitted_head=baselines.get("fitted_head", {}).get(metric),
        best=metrics["metrics"][metric],
        last=metrics["last_metrics"][metric],
        steps=metrics["total_steps"],
        weight_change=metrics["weight_change"],
        seconds=metrics["seconds"],
        alarm=" ".join(metrics["notes"]),
    )


def run(data: Path, addresses: Path) -> None:
    claims = RESULTS.with_suffix(".claims")
    with tempfile.TemporaryDirectory() as scratch:
        write_data(Path(scratch), data, addresses)
        for cell in cells():
            key = "|".join(map(str, cell))
            with locked(RESULTS):
                taken = {f"{r['set']}|{r['change']}|{r['seed']}" for r in read()}
                if key in taken | claimed(claims):
                    continue
                claim(claims, key)
            row = run_cell(*cell, Path(scratch))
            with locked(RESULTS):
                append_row(RESULTS, row)
            print(f"{key}: {row.fitted_head} {row.best:.4f} {row.last:.4f}", flush=True)


def read() -> list[dict[str, str]]:
    if not RESULTS.exists():
        return []
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table() -> None:
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in read():
        groups[row["set"], row["change"]].append(row)
    print("| set | change | constant | fitted head | best | last | alarms |")
    print("|---|---|---:|---:|---|---|---:|")
    for (name, change), rows in groups.items():
        rows.sort(key=lambda row: int(row["seed"]))
        fitted = [float(row["fitted_head"]) for row in rows if row["fitted_head"]]
        shown = [" ".join(f"{float(row[key]):.3f}" for row in rows) for key in ("best", "last")]
        alarms = sum(bool(row["alarm"]) for row in rows)
        head = f"{mean(fitted):.3f}" if fitted else ""
        what = f"`{change}`" if change else "none"
        constant = float(rows[0]["constant"])
        print(f"| {name} | {what} | {constant:.3f} | {head} | {' | '.join(shown)} | {alarms} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--addresses", type=Path)
    args = parser.parse_args()
    if args.what == "run":
        run(args.data, args.addresses)
    else:
        table()


if __name__ == "__main__":
    main()
