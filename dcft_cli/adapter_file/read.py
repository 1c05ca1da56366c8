"""Reading adapter files, without torch. The format: docs/adapter-format.md."""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.spec import Module
from dcft_cli.errors import AdapterFileError

FORMAT_VERSION = 2
_COPY_AGAIN = "Copy it again, or use an adapter from the run's checkpoints/."
ADAPTER_FILE = "adapter.safetensors"  # its name in run folders and checkpoints
ADAPTER_PREFIX = "adapter."
HEAD_PREFIX = "head."

Array = NDArray[np.float32]


@dataclass(frozen=True)
class AdapterContents:
    """A whole, checked adapter file.

    Attributes:
        config, modules: what was inserted where.
        head: tensors trained in addition to the adapter, by parameter name.
        factors: A, B and C of each module, by module name; float32.
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
    head: Mapping[str, Array]
    factors: Mapping[str, Mapping[str, Array]]
    base: Mapping[str, str | None]
    model: Mapping[str, Any]
    info: Mapping[str, Any]
    versions: Mapping[str, str]

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
            return _read(path, file)
    except OSError as error:
        raise AdapterFileError(
            f"Cannot read {path}: {error.strerror}.", "Give an adapter file, or a run folder."
        ) from error
    except SafetensorError as error:
        raise AdapterFileError(
            f"{path} is truncated or damaged, or is no safetensors file ({error}).", _COPY_AGAIN
        ) from error


def _read(path: Path, file: Any) -> AdapterContents:
    metadata = file.metadata() or {}
    if "dcft" not in metadata:
        raise AdapterFileError(
            f"{path} is not a DCFT adapter (a safetensors file without DCFT's own metadata).",
            "Adapters are written by `dcft train`, as RUN/adapter.safetensors.",
        )
    text = metadata["dcft"]
    if metadata.get("dcft_crc32") != checksum(text.encode()):
        raise AdapterFileError(
            f"{path} was altered: its description does not match its checksum.", _COPY_AGAIN
        )
    description = json.loads(text)
    version = description["format_version"]
    if version != FORMAT_VERSION:
        raise AdapterFileError(
            f"{path} has format version {version}; this dcft reads version {FORMAT_VERSION}.",
            f"It was written by dcft {description.get('versions', {}).get('dcft-cli', '?')}.",
        )
    config = DCFTConfig(**description["config"])
    modules = tuple(
        Module(**{**module, "rows": tuple(module["rows"]) if module.get("rows") else None})
        for module in description["modules"]
    )
    expected = {
        f"{ADAPTER_PREFIX}{module.name}.{factor}": shape
        for module in modules
        for factor, shape in module.shapes(config).items()
    }
    expected |= {f"{HEAD_PREFIX}{name}": tuple(s) for name, s in description["head"].items()}
    tensors = _tensors(path, file, expected, description["checksums"])
    return AdapterContents(
        path=path,
        file_bytes=path.stat().st_size,
        format_version=version,
        config=config,
        modules=modules,
        head={name: tensors[f"{HEAD_PREFIX}{name}"] for name in description["head"]},
        factors={
            module.name: {f: tensors[f"{ADAPTER_PREFIX}{module.name}.{f}"] for f in "ABC"}
            for module in modules
        },
        base=description["base"],
        model=description["model"],
        info=description["info"],
        versions=description["versions"],
    )


def checksum(data: bytes | memoryview) -> str:
    """Return the CRC-32 as eight hexadecimal digits."""
    return f"{zlib.crc32(data):08x}"


def _tensors(
    path: Path, file: Any, expected: Mapping[str, tuple[int, ...]], checksums: Sequence[str]
) -> dict[str, Array]:
    found = set(file.keys())
    for problem, names in (
        ("lacks the tensor", expected.keys() - found),
        ("contains an unexpected tensor:", found - expected.keys()),
    ):
        if names:
            raise AdapterFileError(f"{path} {problem} {', '.join(sorted(names))}.", _COPY_AGAIN)
    tensors = {}
    for (name, shape), recorded in zip(expected.items(), checksums, strict=True):
        entry = file.get_slice(name)
        if (entry.get_dtype(), tuple(entry.get_shape())) != ("F32", shape):
            raise AdapterFileError(
                f"{path}: expected the tensor {name} as F32 {shape}, "
                f"found {entry.get_dtype()} {tuple(entry.get_shape())}.",
                _COPY_AGAIN,
            )
        tensors[name] = np.ascontiguousarray(file.get_tensor(name))
        if checksum(tensors[name].tobytes()) != recorded:
            raise AdapterFileError(
                f"{path} was altered: {name} does not match its checksum.", _COPY_AGAIN
            )
    return tensors


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
