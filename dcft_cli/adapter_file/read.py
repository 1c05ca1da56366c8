"""Reading adapter files, without torch. The format: docs/adapter-format.md."""

import json
import math
import zlib
from abc import ABC, abstractmethod
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
class Contents(ABC):
    """A whole, checked adapter file of any method.

    Attributes:
        method: its name, as in a recipe's `adapter.method`.
        modules: the adapted weights; empty if the method has no targets.
        dtype: of the values in the file, "float32" or "bfloat16"; here they are float32.
        head: tensors trained in addition to the adapter, by parameter name.
        fixed: names of parameters that the base lacks and that were not trained: matrices are
            the identity, vectors zero.
        base: name, revision and fingerprint of the base model (strings or None).
        model: "class", "labels" and "problem_type" of the model that was trained.
        info: what the trainer of the adapter wrote about task, labels and data.
        versions: of the libraries that wrote the file.
    """

    path: Path
    file_bytes: int
    format_version: int
    method: str
    modules: tuple[Module, ...]
    dtype: str
    head: Mapping[str, Array]
    fixed: frozenset[str]
    base: Mapping[str, str | None]
    model: Mapping[str, Any]
    info: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def not_in_base(self) -> frozenset[str]:
        """Return the names of the parameters whose values the file decides, not the base."""
        return self.fixed | frozenset(self.head)

    @property
    @abstractmethod
    def adapter_parameters(self) -> int:
        """Return the number of trained values without the head, as published counts do."""

    @property
    def head_parameters(self) -> int:
        """Return the number of trained values outside the adapter."""
        return sum(tensor.size for tensor in self.head.values())


@dataclass(frozen=True)
class BaselineContents(Contents):
    """The file of a method other than DCFT.

    Attributes:
        settings: of the method, as in a recipe's adapter section.
        seed: of the initial values that are not in the file.
        trained: number of trained values without the head.
        tensors: of the method, by name in the model with the method attached.
    """

    settings: Mapping[str, Any]
    seed: int
    trained: int
    tensors: Mapping[str, Array]

    @property
    def adapter_parameters(self) -> int:
        """Return the number of trained values without the head."""
        return self.trained

    def check_tensors(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise AdapterFileError if the tensors are not those of these names and shapes."""
        found = {name: tensor.shape for name, tensor in self.tensors.items()}
        if different := sorted(
            name for name in found.keys() | shapes.keys() if found.get(name) != shapes.get(name)
        ):
            name = different[0]
            raise AdapterFileError(
                f"{self.path} does not fit this model: {len(different)} tensors differ; {name} "
                f"is {found.get(name, 'missing')} in the file, {shapes.get(name, 'missing')} here.",
                f"It was trained on {self.base['name'] or 'another base model'}.",
            )


@dataclass(frozen=True)
class AdapterContents(Contents):
    """A DCFT adapter file.

    Attributes:
        config: what was inserted in the modules.
        factors: A, B and C of each module, by module name.
    """

    config: DCFTConfig
    factors: Mapping[str, Mapping[str, Array]]

    @property
    def adapter_parameters(self) -> int:
        """Return the number of trained values without the head, as published counts do."""
        return sum(module.parameters(self.config) for module in self.modules)

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
    """Read a DCFT adapter file and check every part of it.

    Raises:
        AdapterFileError: as `read_contents`, or the file is one of another method.
    """
    contents = read_contents(path)
    if not isinstance(contents, AdapterContents):
        raise AdapterFileError(
            f"{path} was trained by {contents.method}; only DCFT adapters can be used here.",
            "`dcft eval`, `dcft predict` and `dcft inspect` take every method's.",
        )
    return contents


def read_contents(path: str | Path) -> Contents:
    """Read an adapter file of any method and check every part of it.

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


def _read(path: Path, metadata: Mapping[str, str], stored: Mapping[str, Any]) -> Contents:
    description = _description(path, metadata)
    modules = tuple(
        Module(**{**module, "rows": tuple(module["rows"]) if module.get("rows") else None})
        for module in description["modules"]
    )
    expected = {f"{HEAD_PREFIX}{name}": tuple(s) for name, s in description["head"].items()}
    common: dict[str, Any] = {
        "path": path,
        "file_bytes": path.stat().st_size,
        "format_version": FORMAT_VERSION,
        "method": description["method"],
        "modules": modules,
        "fixed": frozenset(description["fixed"]),
        **{key: description[key] for key in ("base", "model", "info", "versions")},
    }
    if description["method"] != "dcft":
        own = {f"{ADAPTER}.{n}": tuple(shape) for n, shape in description["tensors"].items()}
        tensors = _tensors(path, stored, own | expected, description["checksums"])
        return BaselineContents(
            **common,
            dtype=_dtype(stored),
            head=_under(HEAD_PREFIX, tensors),
            **{key: description[key] for key in ("settings", "seed", "trained")},
            tensors=_under(f"{ADAPTER}.", tensors),
        )
    config = DCFTConfig(**description["config"])
    shapes = [shape for module in modules for shape in module.shapes(config).values()]
    ends = list(accumulate(map(math.prod, shapes)))
    expected = {ADAPTER: (ends[-1],)} | expected
    tensors = _tensors(path, stored, expected, description["checksums"])
    parts = np.split(tensors[ADAPTER], ends[:-1])
    factors = iter([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])
    return AdapterContents(
        **common,
        dtype=_dtype(stored),
        head=_under(HEAD_PREFIX, tensors),
        config=config,
        factors={module.name: {factor: next(factors) for factor in "ABC"} for module in modules},
    )


def _description(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the description in a file's metadata, checked against its checksum."""
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
    description: dict[str, Any] = json.loads(zlib.decompress(b64decode(text)))
    return description


def _dtype(stored: Mapping[str, Any]) -> str:
    """Return the type of the values; a file without tensors (of a method without) is float32."""
    return _DTYPES[next(iter(stored.values()))["dtype"]] if stored else "float32"


def _under(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


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
