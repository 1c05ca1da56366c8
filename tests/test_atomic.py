"""Files, folders and lines that appear whole or not at all."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from dcft_cli.atomic import atomic_path, naming, remove_leftovers


@pytest.mark.parametrize("is_folder", [False, True])
def test_it_appears_on_success_only(tmp_path: Path, is_folder: bool) -> None:
    target = tmp_path / "new" / "target"

    def create(path: Path) -> None:
        if is_folder:
            path.mkdir()
            path /= "file"
        path.write_text("content")
        assert not target.exists()

    with pytest.raises(ZeroDivisionError), atomic_path(target) as path:
        create(path)
        raise ZeroDivisionError
    assert list(target.parent.iterdir()) == []
    with atomic_path(target) as path:
        create(path)
    assert list(target.parent.iterdir()) == [target]
    assert target.is_dir() == is_folder
    assert (target / "file" if is_folder else target).read_text() == "content"


def test_a_file_is_replaced_on_success_only(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(target):
        raise ZeroDivisionError
    assert target.read_text() == "old"
    with atomic_path(target) as path:
        path.write_text("new")
    assert (target.read_text(), list(tmp_path.iterdir())) == ("new", [target])


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with atomic_path(target) as path:
        path.mkdir()
        (path / "file").touch()
    assert [file.name for file in target.iterdir()] == ["file"]


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "target[1]"
    (tmp_path / ".target[1].999.part").mkdir()
    (tmp_path / ".target[1].999.part" / "file").touch()
    (tmp_path / ".target[1].998.part").touch()
    others = [tmp_path / name for name in (".target1.999.part", "target[1].txt", ".target[1].lock")]
    for path in others:
        path.touch()
    remove_leftovers(target)
    assert sorted(tmp_path.iterdir()) == sorted(others)


APPEND = """
import sys
from pathlib import Path
from dcft_cli.atomic import append_line
for _ in range(100):
    append_line(Path(sys.argv[1]), sys.argv[2] * 20_000)
"""


def test_lines_of_several_processes_are_whole(tmp_path: Path) -> None:
    file = tmp_path / "log"
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND, str(file), letter]) for letter in "ab"
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    lines = file.read_text().splitlines()
    assert sorted(lines) == ["a" * 20_000] * 100 + ["b" * 20_000] * 100


# Above the limit, a write stops short, as on a disk that becomes full.
LIMITED = """
import resource
import sys
from pathlib import Path
from dcft_cli.atomic import append_line
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
path = Path(sys.argv[1])
append_line(path, "x" * 30)
try:
    append_line(path, "y" * 30)
except OSError as error:
    print(error.errno, error.filename)
"""


def test_a_line_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{errno.ENOSPC} {file}\n"
    assert file.read_text() == "x" * 30 + "\n"


# Of Python, safetensors and torch, which have no class or attribute that says it.
FULL = """
import resource
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from dcft_cli.atomic import naming
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
path, tensors = Path(sys.argv[1]), {"a": torch.zeros(999_999)}
for write in (
    lambda: path.write_text("x" * 99),
    lambda: save_file(tensors, path),
    lambda: torch.save(tensors, path),
):
    try:
        with naming(path):
            write()
    except OSError as error:
        print(error.errno, error.filename)
"""


def test_errors_of_a_full_disk_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(file)], capture_output=True, text=True, check=True
    )
    found = [f"{number} {file}" for number in (errno.EFBIG, errno.EFBIG, errno.ENOSPC)]
    assert done.stdout.splitlines() == found


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), naming(Path("a/file")):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError) as caught, naming(Path("a/file")):
        Path("nowhere").read_text()
    assert caught.value.filename == "nowhere"
