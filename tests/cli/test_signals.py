"""SIGTERM and SIGHUP in the middle of a command that writes a folder."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dcft_cli.atomic import atomic_path
from dcft_cli.commands import signals
from dcft_cli.commands.signals import ended_in_order, handlers
from dcft_cli.errors import Stopped
from dcft_cli.exporting import export
from tests.cli.conftest import RunCli
from tests.families import save_base
from tests.merging.adapters import adapter_for

PATIENCE = 120  # seconds until the signal must be there


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


@pytest.mark.parametrize("handler", [None, signal.default_int_handler])
def test_a_signal_in_a_finalizer_is_not_lost(
    handler: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python swallows what is raised there, and would print it."""

    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            ended_in_order() if handler is None else handlers(handler),
        ):
            Finalized()
            time.sleep(PATIENCE)
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == ""


def test_a_signal_while_another_is_sent_again_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy machine, where that takes longer than the delay."""
    start, early = signals.start_new_thread, [signal.SIGTERM]

    def delayed(*arguments: Any) -> int:
        if early:
            os.kill(os.getpid(), early.pop())
        return start(*arguments)

    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(signals, "start_new_thread", delayed)
    with pytest.raises(Stopped), ended_in_order():
        Finalized()
        time.sleep(PATIENCE)


def test_other_errors_of_finalizers_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken")

    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    with ended_in_order():
        Broken()
    assert [str(unraisable.exc_value) for unraisable in seen] == ["broken"]


def test_an_ignored_signal_stays_ignored() -> None:
    """As `nohup` wants it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_export_ends_in_order(
    tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_base(tmp_path / "base")
    adapter, out = adapter_for(base), tmp_path / "new" / "out"
    monkeypatch.setattr(export, "write_peft", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # the tests are not to end
    try:
        output = run_cli("export", str(adapter), str(out), "--to", "peft", "--base", str(base))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (output.code, output.out) == (143, "")
    assert output.err.endswith("\nStopped. Nothing was written.\n")
    assert not out.parent.exists()
