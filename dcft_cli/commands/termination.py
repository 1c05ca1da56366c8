"""SIGTERM and SIGHUP: end like an error does, with temporary files removed."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import typer


@contextmanager
def clean_termination() -> Iterator[None]:
    """Context that SIGTERM (a cluster's scheduler) and SIGHUP (a closed terminal) end in order.

    The exit code is 128 plus the signal's number, as a shell reports it. A signal that is ignored
    (`nohup`) stays ignored.
    """
    signals = [signal.SIGTERM] if sys.platform == "win32" else [signal.SIGTERM, signal.SIGHUP]
    signals = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _stop) for number in signals}
    try:
        yield
    except _Terminated as stop:  # raised in the block, which has cleaned up by now
        name = signal.Signals(stop.number).name
        with suppress(OSError):  # the terminal is closed
            typer.echo(f"\nStopped by {name}. Nothing was written.", err=True)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Terminated(SystemExit):
    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # nothing interrupts the removal
    raise _Terminated(number)
