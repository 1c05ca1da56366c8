"""Wall time of the commands that answer at once, each in a fresh process, in turn.

    python benchmarks/startup.py runs/quickstart/adapter.safetensors --rounds 20

`python -c pass` and `import torch` are measured beside them: what any Python program takes, and
what a command takes that imports torch.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapter", help="an adapter file")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    dcft = str(Path(sys.executable).with_name("dcft"))  # the script, as a user calls it
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import torch": [sys.executable, "-c", "import torch"],
        "dcft --help": [dcft, "--help"],
        "dcft train --help": [dcft, "train", "--help"],
        "dcft inspect FILE": [dcft, "inspect", args.adapter],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(1 + args.rounds):  # the first round fills the caches
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if number:
                seconds[name].append(time.perf_counter() - began)
    rows = {name: statistics.quantiles(found, n=4) for name, found in seconds.items()}
    print(json.dumps({**vars(args), "bytes": Path(args.adapter).stat().st_size, "quartiles": rows}))
    print("\n| command | median s | quartiles |")
    print("|---|---:|---|")
    for name, (low, middle, high) in rows.items():
        print(f"| {name} | {middle:.3f} | {low:.3f} to {high:.3f} |")


if __name__ == "__main__":
    main()
