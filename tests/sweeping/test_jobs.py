"""`--jobs` starts the same command in several processes."""

import pytest

from dcft_cli import __version__
from dcft_cli.errors import DCFTError
from dcft_cli.sweeping.jobs import run_jobs


def test_every_process_runs_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    run_jobs(["--version"], 2, [])
    assert capfd.readouterr().out == f"dcft {__version__}\n" * 2


def test_processes_that_fail_are_counted() -> None:
    with pytest.raises(DCFTError, match=r"2 of 2 processes ended early \(exit code 2\)"):
        run_jobs(["inspect", "nowhere"], 2, [])
