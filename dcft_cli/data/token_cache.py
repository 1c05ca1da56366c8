"""On-disk cache of encoded rows, addressed by a hash of everything that they depend on."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow  # type: ignore[import-untyped]
from datasets import Dataset

from dcft_cli.data.cache_folder import cache_folder
from dcft_cli.data.quiet import quiet
from dcft_cli.data.row_hash import row_hash

if TYPE_CHECKING:
    import transformers

ENCODING_VERSION = 3
"""Part of every key: raise it when a task encodes the same rows differently."""

MIN_BYTES = 400_000
"""Size of the rows below which encoding them is faster than writing a file."""

MAX_CACHE_BYTES = 5 * 2**30
"""Size of all files together; beyond it the least recently used ones are deleted."""

# For annotations only: importing transformers takes seconds.
Tokenizer: TypeAlias = "transformers.PreTrainedTokenizerBase"
Encoding: TypeAlias = "transformers.BatchEncoding"

Encode = Callable[[Mapping[str, list[Any]], Sequence[int]], dict[str, list[Any]]]


def encode_rows(
    dataset: Dataset, encode: Encode, tokenizer: Tokenizer, settings: tuple[object, ...]
) -> Dataset:
    """Return the columns that `encode` makes from rows, out of the cache if they are there.

    Only large data sets and fast tokenizers are cached, and only if the folder is writable.

    Args:
        dataset: prepared rows.
        encode: from a batch of rows and their indices to columns.
        tokenizer: that `encode` calls.
        settings: everything else that `encode` depends on; plain values.
    """

    def encoded(fingerprint: str, file: Path | None = None) -> Dataset:
        with quiet(), _restored_backend(tokenizer) if tokenizer.is_fast else nullcontext():
            return dataset.map(
                encode,
                batched=True,
                with_indices=True,
                remove_columns=dataset.column_names,
                # The default fingerprint pickles the tokenizer, which takes half a second.
                new_fingerprint=fingerprint,
                cache_file_name=None if file is None else str(file),
                load_from_cache_file=file is not None,
            )

    folder = cache_folder()
    if folder is not None and tokenizer.is_fast and dataset.data.nbytes >= MIN_BYTES:
        key = _key(dataset, tokenizer, settings)
        file = folder / f"{key}.arrow"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            rows = encoded(key, file)
            os.utime(file)
            _limit_size(folder)
            return rows
        except (OSError, pyarrow.ArrowInvalid):  # cut off, not writable, or the disk is full
            with suppress(OSError):
                file.unlink()
    return encoded(uuid.uuid4().hex)


@contextmanager
def _restored_backend(tokenizer: Tokenizer) -> Iterator[None]:
    """Restore a fast tokenizer's truncation and padding afterwards, which each call changes.

    Otherwise keys, and the tokenizer that a run saves, would depend on earlier calls.
    """
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


def _key(dataset: Dataset, tokenizer: Tokenizer, settings: tuple[object, ...]) -> str:
    """Return the hash of the rows, the tokenizer, the settings and the versions involved."""
    state = (
        ENCODING_VERSION,
        [version(name) for name in ("transformers", "tokenizers", "datasets")],
        settings,
        dataset.features,
        type(tokenizer),
        tokenizer.padding_side,
        tokenizer.truncation_side,
        list(tokenizer.model_input_names),
        sorted(tokenizer.special_tokens_map.items()),
        tokenizer.cls_token_id,
        getattr(tokenizer, "split_special_tokens", False),
        tokenizer.backend_tokenizer.to_str(),
    )
    return row_hash(dataset, state)


def _limit_size(folder: Path) -> None:
    """Delete the least recently used files, and with them what was never finished."""
    with suppress(OSError):  # another process may be deleting too
        total = 0
        for file in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True):
            total += file.stat().st_size
            if total > MAX_CACHE_BYTES:
                file.unlink(missing_ok=True)
