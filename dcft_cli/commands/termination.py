"""SIGTERM and SIGHUP: end like an error does, with temporary files removed."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer


@contextmanager
def clean_termination() -> Iterator[None]:
    """Context that SIGTERM (a cluster's scheduler) and SIGHUP (a closed terminal) end in order.

    The exit code is 128 plus the signal's number, as a shell reports it.
    """
    signals = [signal.SIGTERM] if sys.platform == "win32" else [signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.signal(number, _stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # nothing interrupts the removal
    typer.echo(f"\nStopped by {signal.Signals(number).name}. Nothing was written.", err=True)
    raise SystemExit(128 + number)
