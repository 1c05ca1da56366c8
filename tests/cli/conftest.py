"""Running commands, in a new process or, faster, in this one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dcft_cli.cli import main


@dataclass
class Output:
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str


RunCli = Callable[..., Output]


def shell(*arguments: str, cwd: Path) -> Output:
    """Run the installed `dcft` script, with warnings as errors."""
    script = shutil.which("dcft", path=str(Path(sys.executable).parent))
    assert script, "dcft is not installed in this environment: pip install -e .[test]"
    done = subprocess.run(
        [script, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONWARNINGS": "error", "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    return Output(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]) -> RunCli:
    """Return a function that runs a command line in this process."""

    def run(*arguments: str) -> Output:
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            main(arguments)
        output = capfd.readouterr()
        return Output(int(done.value.code or 0), output.out, output.err)

    return run


@pytest.fixture
def error_of(run_cli: RunCli) -> Callable[..., str]:
    """Return a function that runs an invalid command line and returns its error message."""

    def run(*arguments: str, code: int = 2, hint: bool = True) -> str:
        output = run_cli(*arguments)
        assert output.code == code, output.err
        assert output.out == ""
        assert output.err.startswith("Error: ")
        first = [line.partition(" ")[0] for line in output.err.splitlines()]
        assert first.count("Error:") == 1, output.err
        assert first.count("Hint:") in ((1,) if hint else (0, 1)), output.err
        assert "Traceback" not in output.err
        return output.err

    return run
