"""The files of a run folder."""

from pathlib import Path

import pytest

from dcft_cli.errors import RunError
from dcft_cli.runs.folder import RunFolder, adapter_file


def checkpoint(run: Path, name: str, *, whole: bool = True) -> Path:
    folder = run / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "adapter.safetensors").touch()
    if whole:
        (folder / "trainer_state.json").touch()
    return folder


def test_the_last_checkpoint_has_the_highest_step(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.last_checkpoint() is None
    checkpoint(tmp_path, "checkpoint-9")
    latest = checkpoint(tmp_path, "checkpoint-10")
    checkpoint(tmp_path, "checkpoint-11", whole=False)
    assert run.last_checkpoint() == latest


def test_log_lines_of_later_steps_are_removed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.truncate_log(3)
    lines = [f'{{"step": {step}, "loss": 0.5}}\n' for step in range(1, 6)]
    for torn in ("", '{"step": 3, "lo'):
        run.log.write_text("".join(lines) + torn)
        run.truncate_log(3)
        assert run.log.read_text() == "".join(lines[:3])


def test_an_unfinished_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RunError) as nothing:
        adapter_file(tmp_path)
    assert "finished run" in nothing.value.hint
    latest = checkpoint(tmp_path, "checkpoint-2")
    with pytest.raises(RunError) as unfinished:
        adapter_file(tmp_path)
    assert "resume" in unfinished.value.hint
    assert adapter_file(latest) == latest / "adapter.safetensors"
    with pytest.raises(RunError, match="does not exist"):
        adapter_file(tmp_path / "nowhere")


def test_a_run_in_the_folder_is_not_lost(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.check_free(overwrite=False, resume=False)
    with pytest.raises(RunError, match="no checkpoint to resume"):
        run.check_free(overwrite=False, resume=True)
    checkpoint(run.path, "checkpoint-2")
    run.check_free(overwrite=False, resume=True)
    run.check_free(overwrite=True, resume=False)
    with pytest.raises(RunError, match="contains a run already") as caught:
        run.check_free(overwrite=False, resume=False)
    assert "--overwrite" in caught.value.hint and "--resume" in caught.value.hint
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file"):
        RunFolder(tmp_path / "file").check_free(overwrite=False, resume=False)
