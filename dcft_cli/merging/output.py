"""The new folder that `dcft merge` and `dcft export` write."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from dcft_cli.adapter_file.contents import Contents
from dcft_cli.atomic import remove_leftovers
from dcft_cli.errors import RunError
from dcft_cli.outputs import check_folder, refuse_address
from dcft_cli.runs.lock import exclusive


@contextmanager
def new_folder(out: str) -> Iterator[Path]:
    """Context in which only this process writes a folder; yields its absolute path.

    What killed processes left of it is removed.

    Raises:
        RunError: something is there, or another process writes there.
        UserError: it cannot be created, or is an address.
    """
    refuse_address(out, "folder")
    folder = Path(out).expanduser().resolve()
    _check_new(folder)
    check_folder(folder)
    with exclusive(folder, folder.with_name(f".{folder.name}.lock")) as no_locks:
        _check_new(folder)  # another process may just have finished it
        if not no_locks:
            remove_leftovers(folder)
        yield folder


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, contents: Contents, folder: Path) -> None:
    """Write a tokenizer that, asked to truncate, cuts texts where the training of an adapter did.

    The base's own limit may be larger, and what follows the cut would change predictions.
    """
    data = contents.info.get("data")  # as free as all of `info`
    length = data.get("max_length") if isinstance(data, Mapping) else None
    if isinstance(length, int) and 0 < length < tokenizer.model_max_length:
        tokenizer.model_max_length = length
    tokenizer.save_pretrained(folder)


def _check_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists already.", "Give another folder, or remove it.")
