"""Many mutated files, one after another, with the time and the memory of each.

python -m tests.fuzz adapters --count 100000 --failures DIR
"""

import argparse
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from random import Random
from types import ModuleType

from dcft_cli.errors import DCFTError

KINDS = ("adapters", "recipes", "data")
_MOST_SECONDS, _MOST_MEGABYTES = 1.0, 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number, and seed, of the first case")
    parser.add_argument("--failures", type=Path, default=Path("failures"), help="folder for them")
    settings = parser.parse_args()
    # Imported here: memory is counted from what is imported, and recipes need little of it.
    kind = import_module(f"tests.fuzz.{settings.kind}")
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(run(kind, settings, Path(folder)))


def run(kind: ModuleType, settings: argparse.Namespace, folder: Path) -> int:
    """Check all cases; print a summary, and return the exit code."""
    seeds = kind.seeds(folder)
    for seed in seeds:
        kind.check(seed, folder / "case")
    before, results, slowest = _megabytes(), Counter[str](), 0.0
    for number in _until_interrupted(range(settings.first, settings.first + settings.count)):
        random = Random(number)
        case = kind.mutate(random.choice(seeds), random)
        started = time.perf_counter()
        result = outcome(kind, case, folder / "case")
        seconds = time.perf_counter() - started
        if seconds > _MOST_SECONDS and not result.startswith("defect"):
            result = _repeated(kind, case, folder / "case", result)
        slowest = max(slowest, seconds)
        results[result.partition("\n")[0]] += 1
        if result.startswith("defect"):
            settings.failures.mkdir(parents=True, exist_ok=True)
            (settings.failures / f"{number}").write_bytes(case)
            (settings.failures / f"{number}.txt").write_text(result)
    memory = _megabytes()
    for result, count in results.most_common():
        sys.stdout.write(f"{count:9,} {result}\n")
    sys.stdout.write(
        f"slowest {slowest:.2f} s; peak memory {memory} MB, {before} MB before the first case\n"
    )
    failed = any(result.startswith("defect") for result in results)
    return int(failed or memory - before > _MOST_MEGABYTES)


def _until_interrupted(numbers: range) -> Iterator[int]:
    """Yield numbers until Ctrl-C, so that a long run that is stopped has a summary too."""
    stopped: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))
    for number in numbers:
        if stopped:
            return
        yield number


def outcome(kind: ModuleType, case: bytes, path: Path) -> str:
    """Return "accepted", "refused", or "defect", a short reason, and on more lines a traceback."""
    try:
        kind.check(case, path)
    except DCFTError as error:
        return "refused" if error.exit_code == 2 else f"defect: exit code {error.exit_code}"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        name = f"{Path(where.filename).name}:{where.lineno}"
        return f"defect: {type(error).__name__} in {name}\n{traceback.format_exc()}"
    return "accepted"


def _repeated(kind: ModuleType, case: bytes, path: Path, result: str) -> str:
    """Return a defect if a slow case needs as much of the processor's time again."""
    started = time.process_time()
    outcome(kind, case, path)
    seconds = time.process_time() - started
    return f"defect: {seconds:.1f} s" if seconds > _MOST_SECONDS else result


def _megabytes() -> int:
    """Return the largest memory so far; Linux counts in kilobytes, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 if sys.platform == "linux" else 1024 * 1024)


if __name__ == "__main__":
    main()
