import sys
from pathlib import Path

import pytest

from dcft_cli.errors import UserError
from dcft_cli.outputs import check_file, check_folder, is_address, refuse_address


def test_addresses_are_no_outputs() -> None:
    for address in ("package://a_package/model", "hub://me/x.csv", "s3://bucket/run"):
        with pytest.raises(UserError, match=f"{address} is an address, not a folder to write"):
            refuse_address(address, "folder")
        with pytest.raises(UserError, match=f"{address} is an address, not a file to write"):
            check_file(Path(address))
    for path in ("runs/a", "C:/runs/a", r"C:\runs\a", "a: b", "hub:", "/hub://a"):
        assert not is_address(path)


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "run")
    check_folder(tmp_path)
    check_file(tmp_path / "new" / "rows.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file"):
        check_folder(tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot be created in .*file"):
        check_folder(tmp_path / "file" / "run")
    with pytest.raises(UserError, match="is a folder"):
        check_file(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_a_place_that_cannot_be_written_though_permissions_allow_it() -> None:
    for check in (check_file, check_folder):
        with pytest.raises(UserError, match=r"/proc/new/x cannot be created in /proc\."):
            check(Path("/proc/new/x"))
    with pytest.raises(UserError, match=r"/proc is not writable\."):
        check_folder(Path("/proc"))
