"""Float32 products on a CPU: torch's BLAS against oneDNN, and what oneDNN keeps in memory.

    python benchmarks/products.py --threads 2
    LRU_CACHE_CAPACITY=64 ONEDNN_PRIMITIVE_CACHE_CAPACITY=64 python benchmarks/products.py

Each in turn, medians. Then products of 300 sizes, as batches of changing lengths have them: oneDNN
keeps compiled code for each, as many as these variables say.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dcft_cli.acceleration.onednn import linear

# tokens, in, out
SIZES = [
    (2048, 384, 384),
    (2048, 384, 1536),
    (2048, 1536, 384),
    (1024, 768, 3072),
    (2048, 384, 8),
    (2048, 1536, 8),
]
WARM_UP, ROUNDS, MANY = 3, 30, 300


def milliseconds(ways: dict[str, Callable[[], Tensor]]) -> dict[str, float]:
    """Medians, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM_UP + ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return {name: round(1000 * statistics.median(its), 2) for name, its in seconds.items()}


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    with torch.no_grad():
        for tokens, into, out in SIZES:
            x, W = torch.randn(tokens, into), torch.randn(out, into)
            ways = {"BLAS": lambda: F.linear(x, W), "oneDNN": lambda: linear(x, W)}  # noqa: B023
            rows.append({"size": f"{tokens} x {into} x {out}", **milliseconds(ways)})
        x, W = torch.randn(8 * MANY, 384), torch.randn(384, 384)
        before = peak_megabytes()
        for texts in range(MANY, 0, -1):
            linear(x[: 8 * texts], W)
        grown = round(peak_megabytes() - before)
    print(json.dumps({**vars(args), "torch": torch.__version__, "rows": rows, "grown": grown}))
    print("\n| tokens x in x out | BLAS, ms | oneDNN, ms |\n|---|---:|---:|")
    for row in rows:
        print(f"| {row['size']} | {row['BLAS']} | {row['oneDNN']} |")
    print(f"\n{MANY} sizes of product by oneDNN: {grown} MB more at the peak")


if __name__ == "__main__":
    main()
