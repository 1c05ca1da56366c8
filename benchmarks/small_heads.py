"""Small heads: `head.dense` full, adapter and frozen, where the checkpoint lacks a dense layer.

    python benchmarks/small_heads.py run --data GLUE --base FOLDER [--device cuda] [--part 1/4]
    python benchmarks/small_heads.py table

`run` trains every cell that benchmarks/small_heads.csv lacks by `dcft train`'s own functions, with
the default settings but for one epoch, and adds a row for each; GLUE and FOLDER are those of
benchmarks/learning.py. Start it again to go on, or several parts at once. On CUDA computation is in
bfloat16, `dcft train`'s default there.

Two encoders: `mpnet` is all-mpnet-base-v2 in FOLDER, whose checkpoint has no `classifier.dense`;
`minilm` is the packaged MiniLM, saved without its pooler. `gelu` is a pooler with the activation of
DeBERTa's instead of tanh. `orthogonal` are weights that are a random orthogonal matrix instead of
the identity.
"""

import argparse
import csv
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

from learning import MINILM, append_row
from learning_sets import SETS, write_data

RESULTS = Path(__file__).parent / "small_heads.csv"
DENSE = ("full", "adapter", "frozen")
CHOSEN = ("stsb", "sst2", "words", "mrpc", "cola")
ROWS = 2000
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Row:
    """A run: its main scores, and what it trained."""

    encoder: str
    set: str
    dense: str
    change: str
    seed: int
    metric: str
    constant: float
    fitted_head: float
    best: float
    last: float
    adapter: int
    head: int
    file_bytes: int
    steps: int
    seconds: float
    device: str


def cells() -> Iterator[tuple[str, str, str, str, int]]:
    """Encoder, set, dense, change and seed of every run, the most telling first."""
    for seed, name in product(SEEDS, CHOSEN):
        yield from (("mpnet", name, dense, "", seed) for dense in DENSE)
    for name in CHOSEN:
        yield from (("minilm", name, dense, "", 1) for dense in DENSE)
    for name in CHOSEN[:3]:
        yield from (("minilm", name, dense, "orthogonal", 1) for dense in DENSE[1:])
        yield from (("minilm", name, dense, "gelu", 1) for dense in DENSE)
    for seed, name in product(SEEDS[1:], CHOSEN):
        yield from (("minilm", name, dense, "", seed) for dense in DENSE)


def without_pooler(folder: Path) -> Path:
    """Write the packaged MiniLM without its pooler."""
    from safetensors.torch import load_file, save_file

    from dcft_cli.addresses import local_path

    shutil.copytree(local_path(MINILM), folder)
    path = folder / "model.safetensors"
    weights = {n: tensor for n, tensor in load_file(path).items() if "pooler" not in n}
    save_file(weights, path, {"format": "pt"})
    return folder


def set_orthogonal(parameter: Any) -> None:
    """Set a matrix to a random orthogonal one, a vector to zero."""
    import numpy as np
    import torch

    with torch.no_grad():
        parameter.zero_()
        if parameter.dim() == 2:
            normal = np.random.default_rng(0).standard_normal(parameter.shape)
            parameter.copy_(torch.from_numpy(np.linalg.qr(normal)[0]))


def run_cell(
    encoder: str,
    name: str,
    dense: str,
    change: str,
    seed: int,
    *,
    bases: dict[str, str],
    place: Path,
    device: str,
) -> Row:
    from torch import nn

    from dcft_cli.adapter import inject
    from dcft_cli.models.loading import load_model
    from dcft_cli.recipe import recipe_from_mapping
    from dcft_cli.recipe.loading import LoadedRecipe
    from dcft_cli.runs import attach, train
    from dcft_cli.runs.plan import plan_training
    from dcft_cli.training.reporting import Reporter

    def load_with_gelu(*args: Any) -> Any:
        base = load_model(*args)
        base.model.get_submodule("bert.pooler").activation = nn.GELU()
        return base

    began = time.perf_counter()
    lines = (place / name / "train.jsonl").read_text("utf-8").splitlines(keepends=True)
    rows = place / name / f"train-{ROWS}.jsonl"
    rows.write_text("".join(lines[:ROWS]), "utf-8")
    recipe = recipe_from_mapping(
        {
            "model": {"name": bases[encoder]},
            "task": SETS[name].task,
            "data": {
                "train": str(rows),
                "validation": str(place / name / "validation.jsonl"),
                "max_length": 128,
                **SETS[name].columns,
            },
            "head": {"dense": dense},
            "training": {"epochs": 1, "seed": seed, "device": device},
        },
        f"{encoder} {name} {dense} {change}",
    )
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as changes:
        if change == "gelu":
            changes.enter_context(patch.object(attach, "load_model", load_with_gelu))
        elif change == "orthogonal":
            changes.enter_context(patch.object(inject, "fix", set_orthogonal))
        plan = plan_training(LoadedRecipe(recipe, "cell", Path(scratch)), output=f"{scratch}/run")
        result = train.train(plan, Reporter())
        metrics, metric = result.metrics, result.metrics["main_metric"]
        return Row(
            encoder=encoder,
            set=name,
            dense=dense,
            change=change,
            seed=seed,
            metric=metric,
            constant=metrics["baselines"]["constant"][metric],
            fitted_head=metrics["baselines"]["fitted_head"][metric],
            best=metrics["metrics"][metric],
            last=metrics["last_metrics"][metric],
            adapter=metrics["adapter_parameters"],
            head=metrics["head_parameters"],
            file_bytes=result.folder.adapter.stat().st_size,
            steps=metrics["last_step"],
            seconds=round(time.perf_counter() - began, 1),
            device=metrics["device"],
        )


def read_rows() -> list[dict[str, str]]:
    if not RESULTS.exists():
        return []
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run(data: Path, base: str | None, device: str, part: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        write_data(place, data, None)
        for name in CHOSEN:
            halves = [(place / name / f"{half}.jsonl").read_text() for half in ("choose", "report")]
            (place / name / "validation.jsonl").write_text("".join(halves))
        bases = {"minilm": str(without_pooler(place / "minilm"))}
        if base:
            bases["mpnet"] = base
        number, parts = map(int, part.split("/"))
        wanted = [cell for cell in cells() if cell[0] in bases]
        for cell in wanted[number - 1 :: parts]:
            keys = ("encoder", "set", "dense", "change", "seed")
            done = {tuple(row[key] for key in keys) for row in read_rows()}
            if tuple(map(str, cell)) in done:
                continue
            row = run_cell(*cell, bases=bases, place=place, device=device)
            append_row(RESULTS, row)
            print(row, flush=True)


def table() -> None:
    """Print a line per encoder, set and change: last score (fitted head) seed by seed."""
    found: dict[tuple[str, str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows():
        scores = found[row["encoder"], row["set"], row["change"]][row["dense"]]
        scores.append(f"{float(row['last']):.3f} ({float(row['fitted_head']):.3f})")
    print("| encoder | set | change | full | adapter | frozen |\n|---|---|---|---|---|---|")
    for key, by_dense in found.items():
        print("|", " | ".join((*key, *(" ".join(by_dense[dense]) for dense in DENSE))), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--base")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--part", default="1/1", help="which of how many processes this is")
    args = parser.parse_args()
    if args.what == "table":
        table()
    else:
        run(args.data, args.base, args.device, args.part)


if __name__ == "__main__":
    main()
