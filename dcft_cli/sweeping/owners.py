"""Who runs a trial, and whether that process is still there."""

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

HEARTBEAT_SECONDS = 30.0
"""Time between the signs of life that a process writes while it runs a trial."""

DEAD_AFTER_SECONDS = 300.0
"""Time without a new sign of life after which a process counts as dead."""

Owner = Mapping[str, Any]


@cache
def this_process() -> Owner:
    """Return what other processes need to know about this one, as plain data.

    `place` names a set of processes with one numbering: the host since its start, or a container
    on it. Two hosts may have the same name, and a container sees other processes than its host.
    """
    place = [platform.node()]
    for file in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        path = Path(file)
        if path.exists():
            place.append(str(path.readlink()) if path.is_symlink() else path.read_text().strip())
    return {
        "host": platform.node(),
        "place": " ".join(place),
        "pid": os.getpid(),
        "token": uuid.uuid4().hex,
    }


def is_gone(owner: Owner) -> bool:
    """Return whether a process is known to have ended; False if that cannot be seen from here."""
    own = this_process()
    if owner["token"] == own["token"] or owner["place"] != own["place"] or os.name != "posix":
        return False
    if owner["pid"] == own["pid"]:  # the number was given again, to this process
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@contextmanager
def heartbeat(beat: Callable[[float], object]) -> Iterator[None]:
    """Context in which a thread calls `beat` with the time, every 30 seconds."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            with suppress(Exception):  # a storage out of reach may be back for the next one
                beat(time.time())

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Watch:
    """Tells which signs of life are too old, by this process's own clock.

    Clocks of hosts differ, so a sign of life has no age, only the time since it was first seen.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[object, float]] = {}

    def is_dead(self, trial: str, sign: object) -> bool:
        """Return whether the sign of life of a trial has not changed for too long."""
        now = time.monotonic()
        last, since = self._seen.get(trial, (None, now))
        if trial not in self._seen or last != sign:
            self._seen[trial] = (sign, now)
            return False
        return now - since > DEAD_AFTER_SECONDS
