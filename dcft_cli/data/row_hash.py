"""A hash of rows by their content, wherever and however they are stored."""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH = 10_000  # rows


def row_hash(dataset: "Dataset", about: Iterable[object] = ()) -> str:
    """Return a hash of all rows in their order, and of the `repr` of what is `about` them."""
    digest = hashlib.sha256(repr(tuple(about)).encode())
    table = dataset.with_format("arrow")[:].combine_chunks()
    for batch in table.to_batches(max_chunksize=_BATCH):
        digest.update(batch.serialize())
    return digest.hexdigest()[:32]
