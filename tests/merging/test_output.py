"""The folder that a merge writes: of one process only, and without leftovers."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dcft_cli.errors import RunError
from dcft_cli.merging.merge import merge
from dcft_cli.merging.output import new_folder
from tests.families import save_base
from tests.merging.adapters import adapter_for

PATIENCE = 120  # seconds until the merged model must be there

# The proof waits, so that the signal comes when the model is written, and not yet verified.
WAIT = """
import time
from dcft_cli.cli import main
from dcft_cli.merging import merge
merge.load_merged = lambda *arguments: time.sleep(600)
main()
"""


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with new_folder(out), pytest.raises(RunError, match="out is in use by process"):
        merge(None, "nowhere", out)  # before anything is read
    with new_folder(out) as folder:
        assert folder == tmp_path / "out"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_has_just_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dcft_cli.merging import output

    real = output.exclusive

    def slow(folder: Path, lock_file: Path) -> object:
        folder.mkdir()
        (folder / "config.json").touch()
        return real(folder, lock_file)

    monkeypatch.setattr(output, "exclusive", slow)
    with pytest.raises(RunError, match="exists already"), new_folder(str(tmp_path / "out")):
        pass


@pytest.mark.parametrize(("name", "code"), [("SIGKILL", -9), ("SIGTERM", 143)])
def test_a_killed_merge_leaves_nothing_for_good(tmp_path: Path, name: str, code: int) -> None:
    base = save_base(tmp_path / "base")
    adapter, out = adapter_for(base), tmp_path / "new" / "out"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WAIT, "merge", str(base), str(adapter), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + PATIENCE
        written = out.with_name(f".out.{process.pid}.part") / "model.safetensors"
        while not written.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.Signals[name])
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert (process.returncode, stdout) == (code, ""), stderr
    if name == "SIGKILL":
        assert written.exists()
        merge(str(base), str(adapter), str(out))
        assert [path.name for path in out.parent.iterdir()] == ["out"]
    else:
        assert "\nStopped. Nothing was written.\n" in stderr
        assert "Traceback" not in stderr
        assert not out.parent.exists()
