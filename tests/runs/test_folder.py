"""The files of a run folder."""

from pathlib import Path
from typing import Any

import pytest

from dcft_cli.errors import RunError
from dcft_cli.runs.folder import RunFolder, adapter_file
from dcft_cli.training.checkpoints import write_checkpoint


def test_log_lines_of_later_steps_are_removed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.truncate_log(3)
    lines = [f'{{"step": {step}, "loss": 0.5}}\n' for step in range(1, 6)]
    for torn in ("", '{"step": 3, "lo'):
        run.log.write_text("".join(lines) + torn)
        run.truncate_log(3)
        assert run.log.read_text() == "".join(lines[:3])


def test_the_log_stays_whole_if_a_run_is_killed_while_it_removes_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    whole = "".join(f'{{"step": {step}, "loss": 0.5}}\n' for step in range(1, 6))
    run.log.write_text(whole)
    real = Path.write_text

    def half(path: Path, text: str, **settings: Any) -> None:
        real(path, text[: len(text) // 2], **settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        run.truncate_log(3)
    assert run.log.read_text() == whole


def test_an_unfinished_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RunError) as nothing:
        adapter_file(tmp_path)
    assert "finished run" in nothing.value.hint
    latest = tmp_path / "checkpoints" / "checkpoint-2"
    write_checkpoint(latest, write_files)
    with pytest.raises(RunError) as unfinished:
        adapter_file(tmp_path)
    assert "resume" in unfinished.value.hint
    assert adapter_file(latest) == latest / "adapter.safetensors"
    with pytest.raises(RunError, match="does not exist"):
        adapter_file(tmp_path / "nowhere")


def write_files(folder: Path) -> None:
    (folder / "adapter.safetensors").touch()
    (folder / "trainer_state.json").write_text("{}")


def test_a_folder_with_other_files_has_no_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert not run.has_run()
    run.path.mkdir()
    (run.path / "notes.txt").touch()
    assert not run.has_run()
    run.recipe.touch()
    assert run.has_run()
