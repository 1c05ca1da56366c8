"""Coverage-guided cases by atheris, which the extra `fuzz` installs, without an end.

python -m tests.fuzz.coverage adapters CORPUS
"""

import sys
import tempfile
from importlib import import_module
from pathlib import Path
from random import Random

import atheris

from dcft_cli.errors import DCFTError


def main() -> None:
    """Instrument dcft, and give every case to the kind that the first argument names."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["dcft_cli"]):
        kind = import_module(f"tests.fuzz.{name}")
    folder = Path(tempfile.mkdtemp())
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(kind.seeds(folder)):
        (corpus / f"seed-{number}").write_bytes(seed)

    def check(case: bytes) -> None:
        try:
            kind.check(case, folder / "case")
        except DCFTError:
            return

    def mutate(case: bytes, size: int, number: int) -> bytes:
        # The kind's own mutations keep checksums right; atheris' own cannot.
        random = Random(number)
        try:
            found: bytes = kind.mutate(case, random)
        except Exception:  # the case is too damaged to be taken apart
            found = atheris.Mutate(case, size)
        return found[:size]

    atheris.Setup(sys.argv, check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
