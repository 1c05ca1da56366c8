"""What an order of the features buys: DCFT with the rows and columns of every dW sorted.

    python benchmarks/feature_order.py run --data GLUE
    python benchmarks/feature_order.py table

trains with the sets, settings and two halves of validation rows of learning.py, at the default
learning rate, and adds a row for each run to benchmarks/feature_order.csv. Orders:

- none: as the features are, which is DCFT;
- gradient: by the first singular vectors of each weight's first gradient;
- lora: by the A and B that LoRA at rank 1 has learned on the same rows, which no run could know
  before its first step.

A and B start from the first gradient, in that order.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from learning import MINILM, SEEDS, Cell, append_row, recipe_of
from learning_sets import write_data
from torch import Tensor, nn
from transformers import TrainerCallback

from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.initialization import leading_factors
from dcft_cli.adapter.inject import adapter_layers
from dcft_cli.recipe import recipe_from_mapping
from dcft_cli.recipe.loading import LoadedRecipe
from dcft_cli.runs.plan import TrainingPlan, plan_training
from dcft_cli.runs.start import training_batches
from dcft_cli.runs.train import train
from dcft_cli.targets.gradients import weight_gradients
from dcft_cli.training.reporting import Reporter

RESULTS = Path(__file__).parent / "feature_order.csv"
NAMES = ("sst2", "stsb", "words")
ORDERS = ("none", "gradient", "lora")
RATE, LORA_RATE = 5e-3, 3e-3
ROWS = 256
Vectors = tuple[Tensor, Tensor]
"""What the rows (out,) and the columns (in,) of a weight are sorted by."""


@dataclass(frozen=True)
class Row:
    """One run; `score` is the mean of the scores on both halves."""

    set: str
    order: str
    seed: int
    metric: str
    score: float


class Reorder(TrainerCallback):
    """Sort the features of every adapter before the first step, and start it anew in that order."""

    def __init__(self, plan: TrainingPlan, vectors: Callable[[str, Tensor], Vectors]) -> None:
        self.plan = plan
        self.vectors = vectors

    def on_train_begin(self, *args: Any, model: nn.Module, **kwargs: Any) -> None:
        adapters = adapter_layers(model)
        matrices = [a.target.matrix for a in adapters.values() if a.target]
        preparation, machine = self.plan.preparation, self.plan.machine
        batches = list(training_batches(model.eval(), preparation, machine, ROWS, 32))
        gradients = weight_gradients(model, matrices, batches)
        model.train()
        for (name, adapter), gradient in zip(adapters.items(), gradients, strict=True):
            assert gradient is not None
            rows, columns = (vector.argsort() for vector in self.vectors(name, gradient))
            start(adapter, gradient[rows][:, columns])
            # A layer whose adapter has a `forward` of its own is evaluated without cached W + dW.
            adapter.forward = reordered(adapter.forward, rows.argsort(), columns.argsort())


@torch.no_grad()
def start(adapter: DCFTAdapter, gradient: Tensor) -> None:
    """Set A and B from a gradient (out, in)."""
    c = adapter.config
    sizes = {"kernel_size": c.kernel_size, "stride": c.effective_stride, "rank": c.rank}
    for parameter, value in zip(
        (adapter.A, adapter.B), leading_factors(gradient, **sizes), strict=True
    ):
        parameter.copy_(value)


def reordered(
    forward: Callable[[], tuple[Tensor, Tensor]], rows: Tensor, columns: Tensor
) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a function that computes A' and B' of dW[rows][:, columns]."""

    def ordered() -> tuple[Tensor, Tensor]:
        down, up = forward()
        return down[:, columns], up[rows]

    return ordered


def by_gradient(name: str, gradient: Tensor) -> Vectors:
    U, _, V = torch.linalg.svd(gradient, full_matrices=False)
    return U[:, 0], V[0]


def plan_of(cell: Cell, place: Path, scratch: str) -> TrainingPlan:
    recipe = recipe_of(cell, place, MINILM, "cpu")
    recipe["training"]["acceleration"] = "off"
    loaded = LoadedRecipe(recipe_from_mapping(recipe, cell.key), "cell", Path(scratch))
    return plan_training(loaded, output=f"{scratch}/run")


def learned_by_lora(name: str, place: Path) -> dict[str, Vectors]:
    """B (out,) and A (in,) of LoRA at rank 1, trained on a set, by layer."""
    with tempfile.TemporaryDirectory() as scratch:
        plan = plan_of(Cell("minilm", name, "lora r=1", LORA_RATE, SEEDS[0]), place, scratch)
        trainer = train(plan, Reporter()).trainer
        assert trainer is not None and trainer.model is not None
        factors = dict(trainer.model.named_parameters())
    end = ".lora_A.default.weight"
    return {
        key.removesuffix(end): (
            factors[key.replace("lora_A", "lora_B")].detach().flatten(),
            parameter.detach().flatten(),
        )
        for key, parameter in factors.items()
        if key.endswith(end)
    }


def run(data: Path) -> None:
    done = {(row["set"], row["order"], int(row["seed"])) for row in read()}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        write_data(place, data, None)
        for name in NAMES:
            missing = [c for c in product(ORDERS, SEEDS) if (name, *c) not in done]
            learned = learned_by_lora(name, place) if "lora" in dict(missing) else {}
            for order, seed in missing:
                append_row(RESULTS, run_one(name, order, seed, place, learned))


def run_one(name: str, order: str, seed: int, place: Path, learned: dict[str, Vectors]) -> Row:
    with tempfile.TemporaryDirectory() as scratch:
        plan = plan_of(Cell("minilm", name, "dcft gradient", RATE, seed), place, scratch)
        vectors = by_gradient if order == "gradient" else lambda layer, _: learned[layer]
        callbacks = [] if order == "none" else [Reorder(plan, vectors)]
        metrics = train(plan, Reporter(), callbacks=callbacks).metrics
    metric = metrics["main_metric"].removeprefix("choose_")
    scores = [metrics["last_metrics"][f"{half}_{metric}"] for half in ("choose", "report")]
    return Row(name, order, seed, metric, mean(scores))


def read() -> list[dict[str, str]]:
    if not RESULTS.exists():
        return []
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(rows: Iterable[dict[str, str]]) -> str:
    """Mean score x 100 of each order and set, with the standard deviation over seeds."""
    scores: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        scores.setdefault((row["order"], row["set"]), []).append(100 * float(row["score"]))
    lines = [f"| order | {' | '.join(NAMES)} |", f"|---|{'---|' * len(NAMES)}"]
    for order in ORDERS:
        cells = [f"{mean(s):.1f} ± {stdev(s):.1f}" for s in (scores[order, n] for n in NAMES)]
        lines.append(f"| {order} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    if args.what == "run":
        run(args.data)
    else:
        print(table(read()))


if __name__ == "__main__":
    main()
