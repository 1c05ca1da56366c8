"""A finished run that is started again says so, and nothing else before its results."""

from pathlib import Path

from tests.cli.conftest import RunCli
from tests.jobs import overrides


def test_a_finished_run_typed_again(base: Path, tmp_path: Path, run_cli: RunCli) -> None:
    command = ["train", "recipes/rte.yaml", *overrides("rte", tmp_path, base)]
    command += ["--output", str(tmp_path / "run")]
    first = run_cli(*command)
    assert first.code == 0 and "learning rate 0.01" in first.err
    again = run_cli(*command)
    assert (again.code, again.out) == (0, first.out)
    assert again.err.startswith(
        "Note: The run is finished; --resume with a higher training.max_steps or epochs continues"
        " it, --overwrite starts over.\n"
    )
    assert "resumed" not in again.err and "same recipe" not in again.err
    assert "learning rate 0.01" not in again.err
    planned = run_cli(*command, "--dry-run")
    assert planned.code == 0 and "resumed" in planned.out
