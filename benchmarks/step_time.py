"""Time of a training step against the frozen model: DCFT, full fine-tuning, PEFT's adapters.

    python benchmarks/step_time.py minilm --batch 32 --length 64
    python benchmarks/step_time.py deberta-v3-base --batch 8 --length 128 --rounds 12

All variants share one set of random weights and run in turn, A B C A B C, so that whatever else
the machine does meets each alike. What counts is the ratio to the frozen model in the same turn.
"""

import json
import platform
import statistics
import time

import torch
from variants import FLOOR, Step, arguments, base_model, trained_parameters

WARM_UP = 3


def timed(step: Step, device: torch.device) -> float:
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def measure(steps: dict[str, Step], rounds: int, device: torch.device) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(WARM_UP + rounds):
        for name, step in steps.items():
            took = timed(step, device)
            if number >= WARM_UP:
                seconds[name].append(took)
    return seconds


def summary(seconds: dict[str, list[float]], steps: dict[str, Step]) -> list[dict[str, object]]:
    """Median and quartiles of each variant's ratio to the frozen model in the same turn."""
    rows = []
    for name, ours in seconds.items():
        ratios = [a / b for a, b in zip(ours, seconds[FLOOR], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "variant": name,
                "parameters": trained_parameters(steps[name].variant.trained),
                "milliseconds": round(1000 * statistics.median(ours), 1),
                "ratio": round(middle, 3),
                "quartiles": [round(low, 3), round(high, 3)],
            }
        )
    return rows


def machine(device: torch.device) -> str:
    """Name the processor or the CUDA device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor()


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--scoring", action="store_true", help="forward passes with merged weights")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    base = base_model(args.model, args.dropout).to(device)
    shape = (args.batch, args.length)
    batch = torch.randint(1000, 20000, shape, generator=torch.Generator().manual_seed(0)).to(device)
    names = list(dict.fromkeys([FLOOR, *args.variants]))
    precision = getattr(torch, args.precision)
    how = {"to_inputs": args.to_inputs, "scoring": args.scoring}
    steps = {name: Step(name, base, batch, precision, **how) for name in names}
    rows = summary(measure(steps, args.rounds, device), steps)
    print(json.dumps({**vars(args), "torch": torch.__version__, "machine": machine(device),
                      "rows": rows}))  # fmt: skip
    print(f"\n{args.model}, batch {args.batch} x {args.length}, {args.precision}, {device.type}"
          f"{', forward passes' * args.scoring}\n")  # fmt: skip
    print("| variant | parameters | ms | ratio to frozen | quartiles |")
    print("|---|---:|---:|---:|---|")
    for row in rows:
        low, high = row["quartiles"]
        print(f"| {row['variant']} | {row['parameters']:,} | {row['milliseconds']} "
              f"| {row['ratio']:.3f} | {low:.3f} to {high:.3f} |")  # fmt: skip


if __name__ == "__main__":
    main()
