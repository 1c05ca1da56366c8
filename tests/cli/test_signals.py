"""SIGTERM and SIGHUP in the middle of a command that writes a folder."""

import os
import signal
from pathlib import Path

import pytest

from dcft_cli.atomic import atomic_path
from dcft_cli.commands.signals import ended_in_order
from dcft_cli.errors import Stopped


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_the_block_cleans_up(name: str, code: int, tmp_path: Path) -> None:
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_DFL)  # under nohup, SIGHUP is ignored
    try:
        with (
            pytest.raises(Stopped) as stopped,
            ended_in_order(),
            atomic_path(tmp_path / "out") as part,
        ):
            part.mkdir()
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert stopped.value.exit_code == code
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_signal_stays_ignored() -> None:
    """As `nohup` wants it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
