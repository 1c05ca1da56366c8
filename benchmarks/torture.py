"""Kill training runs, type the same command again, and compare with runs that nobody killed.

    python -m benchmarks.torture --kills 200 --terms 20

Every run is a `dcft train` on a tiny random model, in a process of its own. It gets one signal:

- `random`: SIGKILL at any moment of it,
- `window`: SIGKILL within a few milliseconds after a checkpoint, the log, the recipe or the adapter
  begins to be written,
- `term`: SIGTERM at any moment; the run must end with exit code 143 and, once it trains, with a
  saved checkpoint.

The same command then finishes the run. Its adapter must have the same bytes as that of a run
without a signal, and metrics and log the same content, times excepted. Set-ups take turns: with
early stopping, without, and without validation rows. A row of the csv file is one case. What the
file has already is not repeated. Runs that ended before their signal came are not counted.

The libraries are imported once: each run is a fork of this process. In memory (TMPDIR=/dev/shm)
it goes faster, since every checkpoint is flushed to the disk.
"""

import argparse
import csv
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import dcft_cli.runs.train  # noqa: F401  imported once, for all forks
from dcft_cli.cli import main as dcft
from tests.families import save_base
from tests.samples import rows_of, write_rows

KINDS = ("random", "window", "term")
COLUMNS = ("number", "kind", "setup", "after", "where", "code", "resumed", "equal", "problem")
STEPS = ("training.max_steps=24", "training.eval_steps=4", "training.logging_steps=3")
SETUPS = {
    "plain": STEPS,
    "patience": (*STEPS, "training.early_stopping_patience=3", "training.max_steps=200"),
    "unscored": (*STEPS, "data.validation=null"),
}
RECIPE = """
model: {{name: {base}}}
task: {{type: classification}}
data: {{train: {train}, validation: {dev}, text: sentence, max_length: 48}}
training: {{device: cpu, batch_size: 8, learning_rate: 0.01}}
"""
TIMES = {"seconds", "tokens_per_second", "peak_device_bytes"}
PATIENCE = 300.0  # seconds that a run may take


class Runs:
    """Runs in a folder: the module says what they are for."""

    def __init__(self, home: Path) -> None:
        self.home = home
        rows = {
            name: write_rows(home / f"{name}.jsonl", rows_of("sst2", count, seed=count))
            for name, count in (("train", 60), ("dev", 24))
        }
        self.recipe = home / "tiny.yaml"
        self.recipe.write_text(RECIPE.format(base=save_base(home / "base"), **rows))
        self.expected: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        for setup in SETUPS:
            began = time.monotonic()
            process = self.start(setup, home / setup)
            code = wait(process)
            assert code == 0, (home / setup / "output.txt").read_text()
            self.seconds[setup] = time.monotonic() - began
            self.expected[setup] = result(home / setup)

    def start(self, setup: str, folder: Path) -> int:
        """Start a run in a fork; return its process id."""
        folder.mkdir(exist_ok=True)
        if process := os.fork():
            return process
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = 70
        try:
            dcft(["train", str(self.recipe), *SETUPS[setup], "--output", str(folder)])
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def case(self, number: int, kind: str, setup: str, chance: random.Random) -> dict[str, Any]:
        """Send a run its signal, finish it, and return a row; `code` is None if it was too late."""
        folder = self.home / f"case-{number}"
        began = time.monotonic()
        process = self.start(setup, folder)
        if kind == "window":
            wait_for_write(folder, process, chance)
        else:
            time.sleep(chance.uniform(0, self.seconds[setup]))
        after = time.monotonic() - began
        row = {"number": number, "kind": kind, "setup": setup, "after": round(after, 3)}
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM if kind == "term" else signal.SIGKILL)
        code = wait(process)
        row |= {"code": None if code == 0 else code, "where": where(folder)}
        if code == 0:
            return row
        ends = [-signal.SIGKILL]
        if kind == "term":  # before the command begins, Python ends by the signal: 143 to a shell
            ends = [143, -signal.SIGTERM] if row["where"] == "before the log" else [143]
        problem = "" if code in ends else f"exit code {code}"
        again = wait(self.start(setup, folder))
        said = (folder / "output.txt").read_text()
        row["resumed"] = said.rpartition("Resuming after step ")[2].split()[0] if (
            "Resuming after step " in said) else ""  # fmt: skip
        if again:
            problem = f"the second run ended with {again}: {said[-300:]}"
        differences = [] if again else differing(self.expected[setup], result(folder))
        row["problem"] = problem or ", ".join(differences)
        row["equal"] = not row["problem"]
        return row


def wait_for_write(folder: Path, process: int, chance: random.Random) -> None:
    """Wait until a file of the run is being written, and a little longer."""
    name = chance.choice(["checkpoint", "checkpoint", "checkpoint", "log", "recipe", "adapter"])
    skipped = chance.randrange(10 if name in ("checkpoint", "log") else 1)
    seen: set[object] = set()
    end = time.monotonic() + PATIENCE
    while len(seen) <= skipped and time.monotonic() < end and alive(process):
        seen |= traces(folder, name)
        time.sleep(0.0005)
    time.sleep(chance.choice([0, chance.uniform(0, 0.004), chance.uniform(0, 0.03)]))


def traces(folder: Path, name: str) -> set[object]:
    """Return what shows that a file is being written, or was: temporary names, the log's size."""
    with suppress(OSError):
        if name == "log":
            return {(folder / "log.jsonl").stat().st_size}
        place = folder / "checkpoints" if name == "checkpoint" else folder
        return {path.name for path in place.glob(f".{name}*.part")}
    return set()


def alive(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def wait(process: int) -> int:
    """Wait for a run; return its exit code, or minus the signal that ended it."""
    end = time.monotonic() + PATIENCE
    while alive(process) and time.monotonic() < end:
        time.sleep(0.005)
    if alive(process):
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def where(folder: Path) -> str:
    """Return what there is of a run that was stopped: its last logged step and checkpoints."""
    with suppress(OSError, ValueError, LookupError):
        lines = (folder / "log.jsonl").read_text().splitlines(keepends=True)
        last = json.loads([line for line in lines if line.endswith("\n")][-1])["step"]
        names = sorted(path.name for path in (folder / "checkpoints").glob("*checkpoint-*"))
        return " ".join([f"step {last}", *names])
    return "before the log"


def result(folder: Path) -> dict[str, Any]:
    """Return what a finished run is compared by."""
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    checkpoints = {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for path in (folder / "checkpoints").glob("checkpoint-*/*.safetensors")
    }
    return {
        "adapter": (folder / "adapter.safetensors").read_bytes(),
        "metrics": without_times(json.loads((folder / "metrics.json").read_text())),
        "log": [without_times(line) for line in log],
        "leftovers": sorted(path.name for path in folder.rglob(".*.part")),
        "last checkpoint": checkpoints[max(checkpoints, key=step_and_name)],
    }


def step_and_name(name: str) -> tuple[int, str]:
    return int(name.split("/")[0].partition("-")[2]), name


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in TIMES}


def differing(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [name for name, value in expected.items() if found[name] != value]


def counts(rows: list[dict[str, Any]], of: Callable[[dict[str, Any]], bool]) -> str:
    chosen = [row for row in rows if of(row)]
    good = sum(str(row["equal"]) == "True" for row in chosen)
    return f"{good} of {len(chosen)}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="cases with SIGKILL")
    parser.add_argument("--terms", type=int, default=20, help="cases with SIGTERM")
    parser.add_argument("--minutes", type=float, default=600, help="when to stop at the latest")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    return parser.parse_args()


def main() -> None:
    args = parsed()
    rows: list[dict[str, Any]] = []
    if args.output.exists():
        with args.output.open(newline="") as file:
            rows = list(csv.DictReader(file))
    wanted = {"random": args.kills - args.kills // 2, "window": args.kills // 2, "term": args.terms}
    end = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as home:
        runs = Runs(Path(home).resolve())
        print({name: round(seconds, 1) for name, seconds in runs.seconds.items()}, flush=True)
        number = max([0, *(int(row["number"]) for row in rows)])
        while time.monotonic() < end:
            left = {k: wanted[k] - sum(row["kind"] == k for row in rows) for k in KINDS}
            if max(left.values()) <= 0:
                break
            number += 1
            kind = max(KINDS, key=lambda kind: left[kind] / max(1, wanted[kind]))
            setup = list(SETUPS)[number % len(SETUPS)]
            row = runs.case(number, kind, setup, random.Random(number))
            print(row, flush=True)
            if row["code"] is not None:
                rows.append(row)
                with args.output.open("w", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)
    for kind in KINDS:
        print(kind, counts(rows, lambda row, kind=kind: row["kind"] == kind))
    for setup in SETUPS:
        print(setup, counts(rows, lambda row, setup=setup: row["setup"] == setup))


if __name__ == "__main__":
    main()
