"""Signals that ask a command to stop: Ctrl-C, a scheduler's SIGTERM, a closed terminal's SIGHUP."""

import os
import signal
import sys
import time
from _thread import start_new_thread
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event
from traceback import walk_stack
from types import FrameType
from typing import TYPE_CHECKING, Any

from dcft_cli.errors import Stopped
from dcft_cli.processes import process_count

if TYPE_CHECKING:
    from dcft_cli.training.stopping import StopRequest

# Windows has no SIGHUP.
STOPPING = [number for name in ("SIGINT", "SIGTERM", "SIGHUP")
            if (number := getattr(signal, name, None)) is not None]  # fmt: skip
_STREAMS = (1, 2)  # stdout and stderr
# A launcher of several processes passes on what the terminal has sent to them already.
_ECHO_SECONDS = 1.0
_AGAIN_SECONDS = 0.05


@contextmanager
def handlers(handler: Any) -> Iterator[None]:
    """Context in which a function handles the signals that stop a command.

    Those that are ignored stay ignored, as `nohup` wants it for SIGHUP.

    Python swallows what a handler raises in the middle of a finalizer (`__del__`), as it does every
    exception there. The signal is sent again then.
    """
    found = {number: signal.getsignal(number) for number in STOPPING}
    before = {n: current for n, current in found.items() if current not in (signal.SIG_IGN, None)}
    report = sys.unraisablehook
    over = Event()
    last = signal.SIGINT

    def handle() -> None:
        for number in before:
            signal.signal(number, handle_one)

    def handle_one(number: int, frame: FrameType | None) -> None:
        nonlocal last
        last = signal.Signals(number)
        if any(one.f_code is send_again.__code__ for one, _ in walk_stack(frame)):
            start_new_thread(send_later, (number,))  # what is raised in there is swallowed, too
        else:
            handler(number, frame)

    def send_again(swallowed: Any) -> None:
        if not isinstance(swallowed.exc_value, KeyboardInterrupt):
            report(swallowed)
            return
        handle()
        start_new_thread(send_later, (last,))

    def send_later(number: int) -> None:
        if not over.wait(_AGAIN_SECONDS):
            os.kill(os.getpid(), number)

    handle()
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = report
        over.set()
        for number, current in before.items():
            signal.signal(number, current)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Context that a signal ends by `Stopped`, so that temporary files are removed.

    While they are, further signals are ignored.
    """

    def end(number: int, frame: object) -> None:
        for other in STOPPING:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    with handlers(end):
        yield


@contextmanager
def stop_requests(request: "StopRequest") -> Iterator[None]:
    """Context in which signals request a stop: at once, or after the step if that can wait.

    A second signal stops at once.
    """
    several = process_count() > 1
    terminals = [stream for stream in _STREAMS if os.isatty(stream)]
    asked = 0.0

    def handle(number: int, frame: object) -> None:
        nonlocal asked
        if number == getattr(signal, "SIGHUP", None):
            _leave_closed(terminals)
        now = time.monotonic()
        if request.number and several and now - asked < _ECHO_SECONDS:
            return
        if request.number or not request.can_wait:
            raise Stopped(number)
        request.number, asked = number, now
        if number == signal.SIGINT:
            with suppress(OSError):  # not through Python's streams, which may be writing just now
                os.write(2, b"\nStopping after this step. Ctrl-C again stops at once.\n")

    with handlers(handle):
        yield


def _leave_closed(terminals: list[int]) -> None:
    """Send what would be written to a closed terminal, which is an error, nowhere."""
    for stream in terminals:
        try:
            os.get_terminal_size(stream)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
