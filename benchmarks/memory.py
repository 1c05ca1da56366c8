"""Peak memory of training against the frozen model, in the same variants as step_time.py.

    python benchmarks/memory.py minilm --batch 32 --length 64

On a CPU each variant runs in a process of its own, and what counts is the most that it ever had
resident. Resident sizes depend on how two threads happen to ask for memory: variants take turns,
and medians count. On CUDA one process runs all, once, and what counts is what torch's allocator
gave out at most while the variant trained.
"""

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys

import torch
from torch import nn
from variants import FLOOR, Step, arguments, base_model

STEPS = 3


def steps(name: str, base: nn.Module, args: argparse.Namespace) -> None:
    """Take a few training steps of a variant."""
    device = torch.device(args.device)
    batch = torch.randint(1000, 20000, (args.batch, args.length)).to(device)
    precision = getattr(torch, args.precision)
    step = Step(name, base, batch, precision, to_inputs=args.to_inputs)
    for _ in range(STEPS):
        step()


def resident(name: str, args: argparse.Namespace) -> int:
    """Bytes that this process had resident at most, with the steps of a variant."""
    import peft  # noqa: F401  so that every process holds the same libraries

    torch.set_num_threads(args.threads)
    steps(name, base_model(args.model, args.dropout), args)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def allocated(names: list[str], args: argparse.Namespace) -> dict[str, int]:
    """Bytes that the device's allocator gave out at most during the steps of each variant."""
    base = base_model(args.model, args.dropout).to(args.device)
    found = {}
    for name in names:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(args.device)
        steps(name, base, args)
        found[name] = torch.cuda.max_memory_allocated(args.device)
    return found


def in_fresh_process(name: str) -> int:
    command = [sys.executable, *sys.argv, "--only", name]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(json.loads(said.splitlines()[-1]))


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes of each variant")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(resident(args.only, args)))
        return
    names = list(dict.fromkeys([FLOOR, *args.variants]))
    if torch.device(args.device).type == "cuda":
        rounds = [allocated(names, args)]
    else:
        rounds = [{name: in_fresh_process(name) for name in names} for _ in range(args.rounds)]
    found = {name: [peaks[name] for peaks in rounds] for name in names}
    print(json.dumps({**vars(args), "torch": torch.__version__, "bytes": found}))
    shape = f"{args.model}, batch {args.batch} x {args.length}"
    print(f"\n{shape}, {args.precision}, {args.device}, medians of {len(rounds)}\n")
    print("| variant | peak MB | least to most | ratio to frozen |")
    print("|---|---:|---:|---:|")
    floor = statistics.median(found[FLOOR])
    for name, peaks in found.items():
        middle, least, most = (f(peaks) / 1e6 for f in (statistics.median, min, max))
        ratio = 1e6 * middle / floor
        print(f"| {name} | {middle:,.0f} | {least:,.0f} to {most:,.0f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
