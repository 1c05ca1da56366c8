"""Reading adapter files, without torch. The format: docs/adapter-format.md."""

import math
import zlib
from base64 import b64decode
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.container import COPY_AGAIN, Container, StoredTensor, open_container
from dcft_cli.adapter_file.contents import AdapterContents, Array, BaselineContents, Contents
from dcft_cli.adapter_file.description import (
    BaselineDescription,
    DCFTDescription,
    Description,
    parse_description,
)
from dcft_cli.adapter_file.spec import Module
from dcft_cli.errors import AdapterFileError, listed

FORMAT_VERSION = 3
_DTYPES = {"F32": "float32", "BF16": "bfloat16"}
ADAPTER_FILE = "adapter.safetensors"  # its name in run folders and checkpoints
ADAPTER = "adapter"  # the tensor with all factors, one after another
HEAD_PREFIX = "head."
MAX_DESCRIPTION = 16 << 20  # bytes, decompressed: a few hundred kB at most are usual


def read_adapter(path: str | Path) -> AdapterContents:
    """Read a DCFT adapter file and check every part of it.

    Raises:
        AdapterFileError: as `read_contents`, or the file is one of another method.
    """
    contents = read_contents(path)
    if not isinstance(contents, AdapterContents):
        raise AdapterFileError(
            f"{path} was trained by {contents.method}; only DCFT adapters can be used here.",
            "Commands that take a single adapter, such as `dcft predict ADAPTER FILE`, take "
            "every method's.",
        )
    return contents


def read_contents(path: str | Path) -> Contents:
    """Read an adapter file of any method and check every part of it before it is used.

    Raises:
        AdapterFileError: no such file, truncated, altered, of another version, or with missing,
            unexpected, misshapen or infinite tensors; the message names the part.
    """
    container = open_container(Path(path))
    description = _description(container)
    modules = description.module_specs()
    head = {f"{HEAD_PREFIX}{name}": shape for name, shape in description.head.items()}
    if isinstance(description, BaselineDescription):
        own = {f"{ADAPTER}.{name}": shape for name, shape in description.tensors.items()}
        tensors = _tensors(container, own | head, description.checksums)
        return BaselineContents(
            **_common(container, description, modules, tensors),
            settings=description.settings,
            seed=description.seed,
            trained=description.trained,
            tensors=_under(f"{ADAPTER}.", tensors),
        )
    config = DCFTConfig(**description.config.model_dump())
    shapes = [shape for module in modules for shape in module.shapes(config).values()]
    ends = list(accumulate(map(math.prod, shapes)))
    tensors = _tensors(container, {ADAPTER: (ends[-1],)} | head, description.checksums)
    parts = np.split(tensors[ADAPTER], ends[:-1])
    factors = iter([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])
    return AdapterContents(
        **_common(container, description, modules, tensors),
        config=config,
        factors={module.name: {factor: next(factors) for factor in "ABC"} for module in modules},
    )


def _common(
    container: Container,
    description: Description,
    modules: tuple[Module, ...],
    tensors: Mapping[str, Array],
) -> dict[str, Any]:
    """Return what the contents of all methods have."""
    # A file without tensors, of a method without any, is float32.
    stored = next(iter(container.tensors.values()), StoredTensor("F32", ()))
    return {
        "path": container.path,
        "file_bytes": container.size,
        "format_version": FORMAT_VERSION,
        "method": description.method,
        "modules": modules,
        "dtype": _DTYPES[stored.dtype],
        "head": _under(HEAD_PREFIX, tensors),
        "fixed": frozenset(description.fixed),
        "base": description.base.model_dump(),
        "model": description.model.model_dump(by_alias=True),
        "info": description.info,
        "versions": description.versions,
    }


def _description(container: Container) -> DCFTDescription | BaselineDescription:
    """Return the description in a file's metadata, checked against its checksum and schema."""
    path, metadata = container.path, container.metadata
    if "dcft" not in metadata:
        raise AdapterFileError(
            f"{path} is not a DCFT adapter (a safetensors file without DCFT's own metadata).",
            "Adapters are written by `dcft train`, as RUN/adapter.safetensors.",
        )
    version = metadata.get("dcft_format", "2 or older")
    if version != str(FORMAT_VERSION):
        raise AdapterFileError(
            f"{path} has format version {version}; this dcft reads version {FORMAT_VERSION}.",
            "Read it with the dcft that wrote it, or train again.",
        )
    text = metadata["dcft"]
    if metadata.get("dcft_crc32") != checksum(text.encode()):
        raise AdapterFileError(
            f"{path} was altered: its description does not match its checksum.", COPY_AGAIN
        )
    try:
        return parse_description(_decompress(b64decode(text, validate=True)))
    except (ValueError, zlib.error) as error:
        raise AdapterFileError(
            f"{path} has a description that breaks the format ({error}).",
            "Write it again; docs/adapter-format.md is the format.",
        ) from error


def _decompress(packed: bytes) -> bytes:
    """Decompress a description; raise ValueError beyond the largest size that is read."""
    decompressor = zlib.decompressobj()
    text = decompressor.decompress(packed, MAX_DESCRIPTION)
    if decompressor.unconsumed_tail:
        raise ValueError(f"longer than {MAX_DESCRIPTION:,} bytes")
    return text


def _under(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def checksum(data: bytes | memoryview) -> str:
    """Return the CRC-32 as eight hexadecimal digits."""
    return f"{zlib.crc32(data):08x}"


def _tensors(
    container: Container, expected: Mapping[str, tuple[int, ...]], checksums: Sequence[str]
) -> dict[str, Array]:
    """Read the values of all tensors; return them in the order expected."""
    path, stored = container.path, container.tensors
    for problem, names in (
        ("lacks the tensor", expected.keys() - stored.keys()),
        ("contains an unexpected tensor:", stored.keys() - expected.keys()),
    ):
        if names:
            raise AdapterFileError(f"{path} {problem} {listed(sorted(names))}.", COPY_AGAIN)
    if len(checksums) != len(expected):
        raise AdapterFileError(
            f"{path} has {len(checksums)} checksums for {len(expected)} tensors.", COPY_AGAIN
        )
    for name, shape in expected.items():
        dtype, found = stored[name]
        if dtype not in _DTYPES or found != shape:
            raise AdapterFileError(
                f"{path}: expected the tensor {name} as F32 or BF16 {shape}, "
                f"found {dtype} {found}.",
                COPY_AGAIN,
            )
    recorded = dict(zip(expected, checksums, strict=True))
    tensors = {}
    for name, data in container.values():
        if checksum(data) != recorded[name]:
            raise AdapterFileError(
                f"{path} was altered: {name} does not match its checksum.", COPY_AGAIN
            )
        tensors[name] = _float32(data, stored[name].dtype).reshape(stored[name].shape)
        if not np.isfinite(tensors[name]).all():
            raise AdapterFileError(
                f"{path} contains NaN or infinity: {name}.",
                "Its training diverged, or the file was made by hand: use an earlier checkpoint.",
            )
    return {name: tensors[name] for name in expected}


def _float32(data: bytes, dtype: str) -> Array:
    """Return values stored as F32 or BF16: the upper halves of float32 numbers."""
    if dtype == "F32":
        return np.frombuffer(data, "<f4")
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


def file_in(path: Path) -> Path:
    """Return the adapter file that a path names: the file itself, or the one in a folder."""
    return path / ADAPTER_FILE if path.is_dir() else path
