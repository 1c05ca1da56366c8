"""Whether the process that runs a trial is still there."""

import subprocess
import sys
import time

import pytest

from dcft_cli.sweeping import owners
from dcft_cli.sweeping.owners import Watch, heartbeat, is_gone, this_process

OWNER = (
    "import json; from dcft_cli.sweeping.owners import this_process as p; print(json.dumps(p()))"
)


def test_a_process_that_has_ended_is_gone() -> None:
    import json

    done = subprocess.run([sys.executable, "-c", OWNER], capture_output=True, text=True, check=True)
    other = json.loads(done.stdout)
    own = this_process()
    assert (other["host"], other["place"]) == (own["host"], own["place"])
    assert other["token"] != own["token"]
    assert is_gone(other)
    assert not is_gone({**other, "place": "another host"}), "its processes cannot be seen"
    assert is_gone({**other, "pid": own["pid"]}), "this process has got its number"
    assert not is_gone({**other, "pid": 1}), "some process has this number"
    assert not is_gone(own)


def test_a_sign_of_life_is_too_old_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(owners.time, "monotonic", lambda: now)
    watch = Watch()
    assert not watch.is_dead("a", None)
    now += owners.DEAD_AFTER_SECONDS - 1
    assert not watch.is_dead("a", None)
    assert not watch.is_dead("b", 5.0), "first seen now, however old it is"
    now += 2
    assert watch.is_dead("a", None)
    assert not watch.is_dead("a", 7.0), "a new one"
    now += owners.DEAD_AFTER_SECONDS + 1
    assert watch.is_dead("a", 7.0)


def test_signs_of_life_go_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "HEARTBEAT_SECONDS", 0.001)
    seen: list[float] = []

    def beat(when: float) -> None:
        seen.append(when)
        raise OSError("the storage is out of reach")

    with heartbeat(beat):
        while len(seen) < 3:
            time.sleep(0.001)
    count = len(seen)
    assert abs(seen[-1] - time.time()) < 60
    time.sleep(0.01)
    assert len(seen) == count
