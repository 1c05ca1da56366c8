"""Rows encoded once: what was made of them is kept in a file, and found by what it was made of."""

import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa  # type: ignore[import-untyped]
from datasets import Dataset

from dcft_cli.data.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENCODING = 1
"""Part of every key: to be raised when a task encodes the same rows differently."""

SMALL = 400_000
"""Bytes of rows. Fewer are encoded in less time than a file of them saves."""

LIMIT = 5 * 2**30
"""Bytes of all files together; from there on those that were not used for longest go."""

_ABANDONED = 24 * 3600  # seconds; a file that was begun so long ago is not being written any more

Encode = Callable[..., Mapping[str, list[Any]]]


def encode_rows(
    dataset: Dataset,
    encode: Encode,
    tokenizer: "PreTrainedTokenizerBase",
    settings: tuple[object, ...],
    *,
    with_indices: bool = False,
) -> Dataset:
    """The columns that `encode` makes of rows, or made of the same rows at another time.

    A file is found by a hash of everything that its content depends on: no age is asked, and
    nothing stale is found. Without a folder to write to, rows are encoded at each call.

    Args:
        dataset: prepared rows.
        encode: from a batch of rows, and their numbers if `with_indices`, to columns.
        tokenizer: that `encode` calls.
        settings: all that `encode` depends on besides rows and tokenizer; plain values.
    """

    def encoded(fingerprint: str, file: Path | None = None) -> Dataset:
        with quiet(), _lengths_kept(tokenizer):
            return dataset.map(
                encode,
                batched=True,
                with_indices=with_indices,
                remove_columns=dataset.column_names,
                # Found by itself it would take a pickle of the tokenizer: half a second.
                new_fingerprint=fingerprint,
                cache_file_name=None if file is None else str(file),
                load_from_cache_file=False,
            )

    folder = cache_folder()
    if folder is not None and dataset.data.nbytes >= SMALL:
        key = _key(dataset, tokenizer, settings)
        with suppress(OSError):  # no place to write to, no room left
            return _found(folder, key) or _kept(folder, key, encoded)
    return encoded(uuid.uuid4().hex)


def cache_folder() -> Path | None:
    """Where encoded rows are kept: see docs/recipes.md; None where they are not to be."""
    own = os.environ.get("DCFT_CACHE")
    if own is not None:
        return Path(own).expanduser() / "encoded" if own else None
    usual = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(usual).expanduser() / "dcft" / "encoded"


@contextmanager
def _lengths_kept(tokenizer: "PreTrainedTokenizerBase") -> Iterator[None]:
    """Afterwards a fast tokenizer cuts and pads as before: each call changes that in it.

    Else the tokenizer's state, and the file that a run saves of it, would tell of earlier calls.
    """
    if not tokenizer.is_fast:
        yield
        return
    backend = tokenizer.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding
    try:
        yield
    finally:
        backend.no_truncation()
        backend.no_padding()
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def _key(
    dataset: Dataset, tokenizer: "PreTrainedTokenizerBase", settings: tuple[object, ...]
) -> str:
    """Hash of the rows, of the tokenizer, and of all else that decides what is made of them."""
    versions = [version(name) for name in ("transformers", "tokenizers", "datasets")]
    ours = hashlib.sha256(repr((ENCODING, versions, settings)).encode())
    for part in _tokenizer_state(tokenizer):
        ours.update(hashlib.sha256(part).digest())
    table = dataset.with_format("arrow")[:].combine_chunks().replace_schema_metadata(None)
    with pa.ipc.new_stream(pa.PythonFile(_Sink(ours), "w"), table.schema) as writer:
        writer.write_table(table)
    return ours.hexdigest()[:32]


def _tokenizer_state(tokenizer: "PreTrainedTokenizerBase") -> Iterator[bytes]:
    told = (
        type(tokenizer).__module__,
        type(tokenizer).__qualname__,
        tokenizer.padding_side,
        tokenizer.truncation_side,
        list(tokenizer.model_input_names),
        sorted(tokenizer.special_tokens_map.items()),
        tokenizer.cls_token_id,
        getattr(tokenizer, "split_special_tokens", False),
    )
    yield repr(told).encode()
    if tokenizer.is_fast:
        yield tokenizer.backend_tokenizer.to_str().encode()
        return
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for file in sorted(Path(folder).iterdir()):
            yield file.name.encode()
            yield file.read_bytes()


class _Sink:
    """A file that hashes what is written to it."""

    closed = False

    def __init__(self, digest: "hashlib._Hash") -> None:
        self.digest = digest

    def write(self, data: bytes) -> int:
        """Hashes bytes."""
        self.digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Holds nothing back."""

    def close(self) -> None:
        """Nothing is open."""


def _found(folder: Path, key: str) -> Dataset | None:
    """The file of a key, if it is what was written; a damaged one is removed."""
    for file in folder.glob(f"{key}-*.arrow"):
        with suppress(OSError):
            if _checksum(file) == file.stem.rpartition("-")[2]:
                with suppress(OSError):  # it may be shared, and read only
                    os.utime(file)
                return Dataset.from_file(str(file))
            file.unlink()
    return None


def _kept(folder: Path, key: str, encoded: Callable[[str, Path], Dataset]) -> Dataset:
    """Encodes into a file of its own, which takes its place when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="begun-") as begun:
        part = Path(begun) / "rows.arrow"
        encoded(key, part)
        file = folder / f"{key}-{_checksum(part)}.arrow"
        part.replace(file)
    _make_room(folder, file)
    return Dataset.from_file(str(file))


def _checksum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:32]


def _make_room(folder: Path, newest: Path) -> None:
    """Removes what was not used for longest, and what was never finished."""
    with suppress(OSError):  # another process makes room, too
        for begun in folder.glob("begun-*"):
            if begun.stat().st_mtime < time.time() - _ABANDONED:
                shutil.rmtree(begun, ignore_errors=True)
        known = {file: file.stat() for file in folder.glob("*.arrow") if file != newest}
        total = newest.stat().st_size
        for file in sorted(known, key=lambda file: known[file].st_mtime, reverse=True):
            total += known[file].st_size
            if total > LIMIT:
                file.unlink(missing_ok=True)
