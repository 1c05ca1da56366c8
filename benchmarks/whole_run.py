"""Time and peak memory of a whole `dcft train` with and without pieces of acceleration.

    python benchmarks/whole_run.py RECIPE [KEY=VALUE ...] --variants off layers+factors all

A variant names the pieces that are on, joined by `+` (dcft_cli/acceleration/README.md). Each run is
a fresh process with empty caches; variants run in turn, and what counts is the ratio to `off` in
the same turn. Memory is the largest resident size; on CUDA, the most that torch's allocator gave
out.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from operator import truediv
from pathlib import Path

OFF = "off"
PEAK = "DCFT_BENCHMARK_PEAK"  # names the file for the peak on a CUDA device


@dataclass(frozen=True)
class Run:
    """One command: seconds of the clock and of the processors, and its peak memory in bytes."""

    seconds: float
    processor: float
    peak: int


def pieces_of(variant: str) -> list[str]:
    from dcft_cli.acceleration import PIECES

    return {OFF: [], "all": list(PIECES)}.get(variant, variant.split("+"))


def train(variant: str, command: list[str]) -> None:
    """Run the command line in this process, with the pieces of a variant."""
    import torch

    from dcft_cli.acceleration import enable
    from dcft_cli.cli import main
    from dcft_cli.runs import train as module

    module.enable = partial(enable, pieces=pieces_of(variant))
    try:
        main(command)
    finally:
        if torch.cuda.is_available():
            Path(os.environ[PEAK]).write_text(str(torch.cuda.max_memory_allocated()))


def measured(variant: str, recipe: list[str], threads: int) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        output, peak = Path(folder, "run"), Path(folder, "peak")
        own = {
            "OMP_NUM_THREADS": str(threads),
            "HF_DATASETS_CACHE": str(Path(folder, "cache")),
            "DCFT_CACHE": str(Path(folder, "encoded")),
            "HF_HUB_OFFLINE": "1",
            PEAK: str(peak),
        }
        command = [sys.executable, __file__, "--only", variant, *recipe, f"--output={output}"]
        began = time.perf_counter()
        process = subprocess.Popen(command, env=os.environ | own, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        if status:
            sys.exit(f"{variant} failed")
        resident = usage.ru_maxrss * 1024  # Linux counts in KiB
        return Run(
            seconds,
            usage.ru_utime + usage.ru_stime,
            int(peak.read_text()) if peak.exists() else resident,
        )


def main() -> None:
    if sys.argv[1:2] == ["--only"]:
        train(sys.argv[2], ["train", *sys.argv[3:]])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="+", help="a recipe's path, and KEY=VALUE")
    parser.add_argument("--variants", nargs="+", default=[OFF, "layers", "layers+factors", "all"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    runs: dict[str, list[Run]] = {name: [] for name in dict.fromkeys([OFF, *args.variants])}
    for _ in range(args.rounds):
        for name, done in runs.items():
            done.append(measured(name, args.recipe, args.threads))
            print(f"{name}: {done[-1]}", file=sys.stderr, flush=True)
    print("| on | s | ratio to off | processor, s | ratio to off | peak MB | ratio to off |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, done in runs.items():
        cells = []
        for measure, unit, digits in (("seconds", 1, 1), ("processor", 1, 1), ("peak", 1e6, 0)):
            ours, off = ([getattr(run, measure) for run in turn] for turn in (done, runs[OFF]))
            ratio = statistics.median(map(truediv, ours, off))
            cells += [f"{statistics.median(ours) / unit:,.{digits}f}", f"{ratio:.3f}"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
