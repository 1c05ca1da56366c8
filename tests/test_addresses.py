"""`package://` addresses."""

import sys
from pathlib import Path

import pytest

from dcft_cli.addresses import local_path
from dcft_cli.errors import UserError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that must not be imported, with a file in it."""
    folder = tmp_path / "fragile_words"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "data" / "words.txt").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_files_and_folders(package: Path) -> None:
    assert local_path("package://fragile_words/data/words.txt") == package / "data" / "words.txt"
    assert local_path("package://fragile_words/data") == package / "data"
    assert local_path("package://fragile_words") == package
    assert "fragile_words" not in sys.modules


def test_plain_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_path("data/words.txt") == Path("data/words.txt")
    assert local_path("~/words.txt") == Path.home() / "words.txt"
    monkeypatch.setenv("DATA", "/my data")
    assert local_path("$DATA/words.txt") == local_path("${DATA}/words.txt")
    assert local_path("$DATA/words.txt") == Path("/my data/words.txt")
    monkeypatch.delenv("DATA")
    assert local_path("$DATA/words.txt") == Path("$DATA/words.txt")


def test_no_such_file(package: Path) -> None:
    with pytest.raises(UserError, match=r"`fragile_words` holds no data/other\.txt") as caught:
        local_path("package://fragile_words/data/other.txt")
    assert "pip install --upgrade fragile-words" in caught.value.hint


@pytest.mark.parametrize("name", ["no_such_package", "no-such-package", "", "a.b", "../up"])
def test_no_such_package(name: str) -> None:
    with pytest.raises(UserError, match="is not installed") as caught:
        local_path(f"package://{name}/words.txt")
    assert caught.value.exit_code == 2


def test_what_to_install() -> None:
    with pytest.raises(UserError) as caught:
        local_path("package://no_such_package/model")
    assert "pip install no-such-package" in caught.value.hint
    assert "dcft-cli[quickstart]" in caught.value.hint


def test_a_module_is_no_package() -> None:
    """json5-like single files and built-in modules hold no files."""
    with pytest.raises(UserError):
        local_path("package://sys/words.txt")
