"""SIGTERM and SIGHUP in the middle of a command that writes a folder."""

import os
import signal
from pathlib import Path

import pytest

from dcft_cli.atomic import atomic_path
from dcft_cli.commands.termination import clean_termination


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_the_block_cleans_up(
    name: str, code: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    number = signal.Signals[name]
    before = signal.getsignal(number)
    with (
        pytest.raises(SystemExit) as stopped,
        clean_termination(),
        atomic_path(tmp_path / "out") as part,
    ):
        part.mkdir()
        os.kill(os.getpid(), number)
    assert stopped.value.code == code
    assert capfd.readouterr() == ("", f"\nStopped by {name}. Nothing was written.\n")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) == before


def test_an_ignored_signal_stays_ignored() -> None:
    """As `nohup` wants it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with clean_termination():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
