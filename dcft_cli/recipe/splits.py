"""Telling a file from a split of a Hub data set, by its name alone."""

from pathlib import PurePosixPath

_ENDINGS = frozenset(
    {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".conll", ".iob", ".iob2", ".bio"}
)


def is_file_address(value: str) -> bool:
    """Says whether `data.train` or `data.validation` names a file rather than a Hub split.

    A file has a path separator (`package://` addresses have one too) or the ending of a data
    format; any other file is written with its folder (`./words.txt`). For a file, the recipe's
    `data.hub`, `data.config` and `data.revision` do not apply. So a recipe that names a Hub
    data set can be trained on local files by overriding these two keys alone.
    """
    return "/" in value or "\\" in value or PurePosixPath(value).suffix.lower() in _ENDINGS
