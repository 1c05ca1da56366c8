"""Two ways to type a command: into a process of its own, and quicker, into this one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dcft_cli.cli import app


@dataclass
class Said:
    """What a command left behind: exit code, stdout and stderr."""

    code: int
    out: str
    err: str


Say = Callable[..., Said]


def shell(*arguments: str, cwd: Path) -> Said:
    """Runs the installed `dcft` script; a warning in it is an error."""
    script = shutil.which("dcft", path=str(Path(sys.executable).parent))
    assert script, "dcft is not installed beside this Python: pip install -e .[test]"
    done = subprocess.run(
        [script, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONWARNINGS": "error", "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    """Runs a command line in this process."""

    def run(*arguments: str) -> Said:
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            app(arguments)
        said = capfd.readouterr()
        return Said(int(done.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def refused(say: Say) -> Callable[..., str]:
    """Runs a command line that must be refused as the user's mistake; gives the message."""

    def run(*arguments: str, code: int = 2, hint: bool = True) -> str:
        said = say(*arguments)
        assert said.code == code, said.err
        assert said.out == ""
        assert said.err.startswith("Error: ")
        first = [line.partition(" ")[0] for line in said.err.splitlines()]
        assert first.count("Error:") == 1, said.err
        assert first.count("Hint:") in ((1,) if hint else (0, 1)), said.err
        assert "Traceback" not in said.err
        return said.err

    return run
