"""Files and folders that appear whole or not at all."""

from pathlib import Path

import pytest

from dcft_cli.atomic import atomic_path


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
