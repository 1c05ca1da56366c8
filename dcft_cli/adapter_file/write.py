"""Writing adapter files."""

import json
import struct
import zlib
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.inject import adapter_layers, fixed_parameters, head_parameters
from dcft_cli.adapter_file.description import parse_description
from dcft_cli.adapter_file.fingerprint import fingerprint
from dcft_cli.adapter_file.read import (
    ADAPTER,
    FORMAT_VERSION,
    HEAD_PREFIX,
    MAX_DESCRIPTION,
    checksum,
    file_in,
)
from dcft_cli.adapter_file.spec import Module
from dcft_cli.atomic import atomic_path
from dcft_cli.errors import ModelError
from dcft_cli.targets.resolve import Target

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_LIBRARIES = ("dcft-cli", "torch", "transformers", "safetensors")


def save_adapter(
    model: nn.Module,
    path: str | Path,
    *,
    base_name: str | None = None,
    base_revision: str | None = None,
    base_fingerprint: str | None = None,
    info: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write the adapters of a model and its other trained parameters to one file.

    The file appears only when it is complete.

    Args:
        model: a model with adapters.
        path: the file; `adapter.safetensors` inside it if `path` is a folder.
        base_name, base_revision: of the base model.
        base_fingerprint: of the base weights; None computes it.
        info: anything JSON can hold about task, labels and data; kept as it is.
        dtype: of the values in the file, torch.float32 or torch.bfloat16. Rounding changes the
            model's outputs: score the loaded file.

    Returns:
        The file's path.

    Raises:
        ModelError: the model has no adapters, or some that `inject` did not insert.
        ValueError: another `dtype`, or `info` is not JSON or too long.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be torch.float32 or torch.bfloat16, got {dtype}")
    layers, head, fixed = adapter_layers(model), head_parameters(model), fixed_parameters(model)
    if not layers or len(layers) < sum(isinstance(m, DCFTAdapter) for m in model.modules()):
        raise ModelError(
            "The model has no DCFT adapters to save, or some without a name.",
            "Insert all of them with inject().",
        )
    path = file_in(Path(path))
    config = next(iter(layers.values())).config
    factors = [getattr(layer, f).detach().cpu() for layer in layers.values() for f in "ABC"]
    tensors = {ADAPTER: torch.cat([factor.flatten() for factor in factors])}
    description = {
        "method": "dcft",
        "config": {
            **asdict(config),
            "stride": config.effective_stride,
            "targets": list(config.targets),
        },
        "modules": _modules([layer.target for layer in layers.values() if layer.target]),
        "fixed": sorted(fixed),
        "base": {
            "name": base_name,
            "revision": base_revision,
            "fingerprint": base_fingerprint or fingerprint(model, exclude=fixed | head.keys()),
        },
        "info": dict(info or {}),
    }
    _write(path, model, description, tensors, head, dtype)
    return path


def save_baseline(
    path: Path,
    model: nn.Module,
    *,
    method: str,
    settings: Mapping[str, Any],
    seed: int,
    targets: Sequence[Target],
    tensors: Mapping[str, Tensor],
    trained: int,
    head: Mapping[str, Tensor],
    fixed: Collection[str],
    base: Mapping[str, str | None],
    info: Mapping[str, Any],
    dtype: torch.dtype,
) -> None:
    """Write the file of a method other than DCFT; see `BaselineContents`."""
    description = {
        "method": method,
        "settings": dict(settings),
        "seed": seed,
        "trained": trained,
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "modules": _modules(targets),
        "fixed": sorted(fixed),
        "base": dict(base),
        "info": dict(info),
    }
    own = {f"{ADAPTER}.{name}": tensor.detach() for name, tensor in tensors.items()}
    _write(path, model, description, own, head, dtype)


def _modules(targets: Iterable[Target]) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in asdict(as_module(target)).items() if v not in (None, False)}
        for target in targets
    ]


def _write(
    path: Path,
    model: nn.Module,
    description: dict[str, Any],
    tensors: Mapping[str, Tensor],
    head: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> None:
    """Write a description, completed by what all methods have, and the tensors it describes."""
    tensors = {**tensors, **{f"{HEAD_PREFIX}{n}": tensor.detach() for n, tensor in head.items()}}
    stored = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    description |= {
        "head": {name: list(tensor.shape) for name, tensor in head.items()},
        "model": describe(model),
        "versions": {name: found for name in _LIBRARIES if (found := _version(name))},
        "checksums": [checksum(_bytes(tensor)) for tensor in stored.values()],
    }
    text = b64encode(zlib.compress(_json(description), level=9)).decode()
    metadata = {
        "format": "pt",
        "dcft_format": str(FORMAT_VERSION),
        "dcft": text,
        "dcft_crc32": checksum(text.encode()),
    }
    with atomic_path(path) as temporary:
        temporary.write_bytes(_safetensors(stored, metadata))


def _json(description: Mapping[str, Any]) -> bytes:
    """Return a description as JSON, checked like that of a file that is read."""
    text = json.dumps(description, separators=(",", ":"), allow_nan=False).encode()
    if len(text) > MAX_DESCRIPTION:
        raise ValueError(f"info must be shorter: readers take {MAX_DESCRIPTION:,} bytes at most")
    parse_description(text)
    return text


@torch.no_grad()
def round_values(tensors: Iterable[Tensor], dtype: torch.dtype) -> None:
    """Round tensors in place to the values that a file of this type holds."""
    for tensor in tensors:
        tensor.copy_(tensor.to(dtype))


def as_module(target: Target) -> Module:
    """Return the description of a target's adapter in a file."""
    return Module(
        name=target.name,
        role=target.role,
        out_features=target.out_features,
        in_features=target.in_features,
        weight=target.matrix.parameter_name,
        rows=target.rows,
        count=target.matrix.count,
        transposed=target.matrix.transposed,
    )


def describe(model: nn.Module) -> dict[str, Any]:
    """Return what is needed to build the model again: its class, and its labels if it has any."""
    config = getattr(model, "config", None)
    labels = getattr(config, "id2label", None) or {}
    return {
        "class": type(model).__name__,
        "labels": [labels[number] for number in sorted(labels)],
        "problem_type": getattr(config, "problem_type", None),
    }


def _safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file of tensors in this order.

    The library's own writer puts metadata in random order; here the same adapter always gives
    the same bytes.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    body = bytearray()
    for name, tensor in tensors.items():
        start = len(body)
        body += _bytes(tensor)
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, len(body)],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the tensors
    return struct.pack("<Q", len(text)) + text + bytes(body)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.flatten().view(torch.uint8).numpy().tobytes()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
