"""Running commands, in a new process or, faster, in this one."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dcft_cli.cli import main
from tests.families import save_base
from tests.samples import rows_of, write_rows

TRAIN = (
    "train recipes/rte.yaml model.name=base data.train=train.jsonl data.validation=dev.jsonl"
    " training.max_steps=6 training.eval_steps=3 training.batch_size=8 training.warmup_steps=1"
    " training.device=cpu"
).split()


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


def ok(output: Output) -> Output:
    assert output.code == 0, output.err
    assert "Traceback" not in output.err
    assert "Warning" not in output.err
    return output


def metrics(home: Path) -> dict:
    return json.loads((home / "runs" / "rte" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's: a base model and data, and no checkout anywhere near."""
    home = tmp_path_factory.mktemp("home")
    save_base(home / "base", initializer_range=0.3)
    write_rows(home / "train.jsonl", rows_of("rte", 21))
    write_rows(home / "dev.jsonl", rows_of("rte", 12, seed=1))
    return home


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
