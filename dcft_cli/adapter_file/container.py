"""The safetensors container of an adapter file; its header is checked before the rest is read."""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from dcft_cli.errors import AdapterFileError

COPY_AGAIN = "Copy it again, or use an adapter from the run's checkpoints/."
MAX_HEADER = 16 << 20
"""Largest header read, in bytes: a usual one has 2 kB, one of 100,000 labels about 2 MB.
safetensors itself reads up to 100 MB, which cost seconds and gigabytes to parse."""

_LENGTH = struct.Struct("<Q")
_BYTES = {"F32": 4, "BF16": 2}


class StoredTensor(NamedTuple):
    """What the header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Container:
    """A safetensors file with a checked header: offsets in range, without overlaps or holes.

    Attributes:
        size: of the file, in bytes.
        metadata: strings by key.
        tensors: by name, in the order of their values in the file.
    """

    path: Path
    size: int
    metadata: Mapping[str, str]
    tensors: Mapping[str, StoredTensor]

    def values(self) -> Iterator[tuple[str, bytes]]:
        """Yield the bytes of each tensor, in file order. All must be F32 or BF16.

        Raises:
            AdapterFileError: the file became shorter.
        """
        with self.path.open("rb") as file:
            file.seek(_LENGTH.unpack(file.read(_LENGTH.size))[0], 1)
            for name, (dtype, shape) in self.tensors.items():
                length = math.prod(shape) * _BYTES[dtype]
                data = file.read(length)
                if len(data) != length:
                    raise _damaged(self.path, "it became shorter while it was read")
                yield name, data


def open_container(path: Path) -> Container:
    """Read and check the header of a safetensors file, and nothing after it.

    Raises:
        AdapterFileError: no such file, or its header is damaged or too large.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would wait for ever
            raise AdapterFileError(f"{path} is not a file.", "Give an adapter file.")
        # Opened for the system's own words: missing, a folder, no permission.
        with path.open("rb") as file:
            start = file.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
        if length > MAX_HEADER:
            raise _damaged(path, f"a header of {length:,} bytes; at most {MAX_HEADER:,} are read")
        with safe_open(path, framework="numpy") as stored:
            slices = {name: stored.get_slice(name) for name in stored.offset_keys()}
            tensors = {
                name: StoredTensor(found.get_dtype(), tuple(found.get_shape()))
                for name, found in slices.items()
            }
            return Container(path, path.stat().st_size, stored.metadata() or {}, tensors)
    except OSError as error:
        raise AdapterFileError(
            f"Cannot read {path}: {error.strerror or error}.",
            "Give an adapter file, or a run folder.",
        ) from error
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> AdapterFileError:
    return AdapterFileError(
        f"{path} is truncated or damaged, or is no safetensors file ({reason}).", COPY_AGAIN
    )
