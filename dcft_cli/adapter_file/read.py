"""Reading adapter files, without torch. The format: docs/adapter-format.md."""

import json
import math
import zlib
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize, safe_open

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.spec import Module
from dcft_cli.errors import AdapterFileError

FORMAT_VERSION = 3
_DTYPES = {"F32": "float32", "BF16": "bfloat16"}
_COPY_AGAIN = "Copy it again, or use an adapter from the run's checkpoints/."
ADAPTER_FILE = "adapter.safetensors"  # its name in run folders and checkpoints
ADAPTER = "adapter"  # the tensor with all factors, one after another
HEAD_PREFIX = "head."

Array = NDArray[np.float32]


@dataclass(frozen=True)
class AdapterContents:
    """A whole, checked adapter file.

    Attributes:
        config, modules: what was inserted where.
        dtype: of the values in the file, "float32" or "bfloat16"; here they are float32.
        head: tensors trained in addition to the adapter, by parameter name.
        fixed: names of parameters that the base lacks and that were not trained: matrices are
            the identity, vectors zero.
        factors: A, B and C of each module, by module name.
        base: name, revision and fingerprint of the base model (strings or None).
        model: "class", "labels" and "problem_type" of the model that was trained.
        info: what the trainer of the adapter wrote about task, labels and data.
        versions: of the libraries that wrote the file.
    """

    path: Path
    file_bytes: int
    format_version: int
    config: DCFTConfig
    modules: tuple[Module, ...]
    dtype: str
    head: Mapping[str, Array]
    fixed: frozenset[str]
    factors: Mapping[str, Mapping[str, Array]]
    base: Mapping[str, str | None]
    model: Mapping[str, Any]
    info: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def not_in_base(self) -> frozenset[str]:
        """Return the names of the parameters whose values the file decides, not the base."""
        return self.fixed | frozenset(self.head)

    @property
    def adapter_parameters(self) -> int:
        """Return the number of trained values without the head, as published counts do."""
        return sum(module.parameters(self.config) for module in self.modules)

    @property
    def head_parameters(self) -> int:
        """Return the number of trained values outside the adapter."""
        return sum(tensor.size for tensor in self.head.values())

    def delta_norm(self, module: Module) -> float:
        """Compute the Frobenius norm of a module's dW; of a whole stack where there is one."""
        d, s = self.config.kernel_size, self.config.effective_stride
        A, B, C = (self.factors[module.name][f].astype(np.float64) for f in "ABC")
        total = 0.0
        for a, b, c in zip(*(f.reshape(-1, *f.shape[-2:]) for f in (A, B, C)), strict=True):
            down = _place_windows(a, d, s, module.in_features).reshape(-1, module.in_features)
            up = np.einsum("kno,nm->okm", _place_windows(b.T, d, s, module.out_features), c)
            up = up.reshape(module.out_features, -1)
            # ||B' A'||_F^2 = <B'^T B', A' A'^T>: small matrices only.
            total += max(float(np.sum((up.T @ up) * (down @ down.T))), 0.0)
        return self.config.scale * math.sqrt(total)


def read_adapter(path: str | Path) -> AdapterContents:
    """Read an adapter file and check every part of it.

    Raises:
        AdapterFileError: no such file, truncated, altered, of another version, or with missing,
            unexpected or misshapen tensors; the message names the part.
    """
    path = Path(path)
    try:
        with path.open("rb"):  # for the system's own words: missing, a folder, no permission
            pass
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        stored = dict(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
        return _read(path, metadata, stored)
    except OSError as error:
        raise AdapterFileError(
            f"Cannot read {path}: {error.strerror}.", "Give an adapter file, or a run folder."
        ) from error
    except SafetensorError as error:
        raise AdapterFileError(
            f"{path} is truncated or damaged, or is no safetensors file ({error}).", _COPY_AGAIN
        ) from error


def _read(path: Path, metadata: Mapping[str, str], stored: Mapping[str, Any]) -> AdapterContents:
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
            f"{path} was altered: its description does not match its checksum.", _COPY_AGAIN
        )
    description = json.loads(zlib.decompress(b64decode(text)))
    config = DCFTConfig(**description["config"])
    modules = tuple(
        Module(**{**module, "rows": tuple(module["rows"]) if module.get("rows") else None})
        for module in description["modules"]
    )
    shapes = [shape for module in modules for shape in module.shapes(config).values()]
    ends = list(accumulate(map(math.prod, shapes)))
    expected = {ADAPTER: (ends[-1],)}
    expected |= {f"{HEAD_PREFIX}{name}": tuple(s) for name, s in description["head"].items()}
    tensors = _tensors(path, stored, expected, description["checksums"])
    parts = np.split(tensors[ADAPTER], ends[:-1])
    factors = iter([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])
    return AdapterContents(
        path=path,
        file_bytes=path.stat().st_size,
        format_version=FORMAT_VERSION,
        config=config,
        modules=modules,
        dtype=_DTYPES[stored[ADAPTER]["dtype"]],
        head={name: tensors[f"{HEAD_PREFIX}{name}"] for name in description["head"]},
        fixed=frozenset(description["fixed"]),
        factors={module.name: {factor: next(factors) for factor in "ABC"} for module in modules},
        base=description["base"],
        model=description["model"],
        info=description["info"],
        versions=description["versions"],
    )


def checksum(data: bytes | memoryview) -> str:
    """Return the CRC-32 as eight hexadecimal digits."""
    return f"{zlib.crc32(data):08x}"


def _tensors(
    path: Path,
    stored: Mapping[str, Any],
    expected: Mapping[str, tuple[int, ...]],
    checksums: Sequence[str],
) -> dict[str, Array]:
    for problem, names in (
        ("lacks the tensor", expected.keys() - stored.keys()),
        ("contains an unexpected tensor:", stored.keys() - expected.keys()),
    ):
        if names:
            raise AdapterFileError(f"{path} {problem} {', '.join(sorted(names))}.", _COPY_AGAIN)
    tensors = {}
    for (name, shape), recorded in zip(expected.items(), checksums, strict=True):
        dtype, found = stored[name]["dtype"], tuple(stored[name]["shape"])
        if dtype not in _DTYPES or found != shape:
            raise AdapterFileError(
                f"{path}: expected the tensor {name} as F32 or BF16 {shape}, "
                f"found {dtype} {found}.",
                _COPY_AGAIN,
            )
        data = stored[name]["data"]
        if checksum(data) != recorded:
            raise AdapterFileError(
                f"{path} was altered: {name} does not match its checksum.", _COPY_AGAIN
            )
        tensors[name] = _float32(data, dtype).reshape(shape)
    return tensors


def _float32(data: bytes, dtype: str) -> Array:
    """Return values stored as F32 or BF16: the upper halves of float32 numbers."""
    if dtype == "F32":
        return np.frombuffer(data, "<f4")
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


def _place_windows(
    factor: NDArray[np.float64], kernel_size: int, stride: int, size: int
) -> NDArray[np.float64]:
    """Compute `functional.place_windows` in numpy: (k, n) to (k, d, size)."""
    k, n = factor.shape
    result = np.zeros((k, kernel_size, (n - 1) * stride + kernel_size))
    for m in range(kernel_size):
        result[:, m, m : m + (n - 1) * stride + 1 : stride] = factor
    return result[..., :size]


def file_in(path: Path) -> Path:
    """Return the adapter file that a path names: the file itself, or the one in a folder."""
    return path / ADAPTER_FILE if path.is_dir() else path
