"""Writing adapter files."""

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.inject import adapter_layers, head_parameters
from dcft_cli.adapter_file.fingerprint import fingerprint
from dcft_cli.adapter_file.read import (
    ADAPTER_PREFIX,
    FORMAT_VERSION,
    HEAD_PREFIX,
    checksum,
    file_in,
)
from dcft_cli.adapter_file.spec import Module
from dcft_cli.atomic import atomic_path
from dcft_cli.errors import ModelError
from dcft_cli.targets.resolve import Target

_LIBRARIES = ("dcft-cli", "torch", "transformers", "safetensors")


def save_adapter(
    model: nn.Module,
    path: str | Path,
    *,
    base_name: str | None = None,
    base_revision: str | None = None,
    base_fingerprint: str | None = None,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """Write the adapters of a model and its other trained parameters to one file.

    The file appears only when it is complete.

    Args:
        model: a model with adapters.
        path: the file; `adapter.safetensors` inside it if `path` is a folder.
        base_name, base_revision: of the base model.
        base_fingerprint: of the base weights; None computes it.
        info: anything JSON can hold about task, labels and data; kept as it is.

    Returns:
        The file's path.

    Raises:
        ModelError: the model has no adapters, or some that `inject` did not insert.
    """
    layers, head = adapter_layers(model), head_parameters(model)
    if not layers or len(layers) < sum(isinstance(m, DCFTAdapter) for m in model.modules()):
        raise ModelError(
            "The model has no DCFT adapters to save, or some without a name.",
            "Insert all of them with inject().",
        )
    path = file_in(Path(path))
    config = next(iter(layers.values())).config
    tensors = {
        f"{ADAPTER_PREFIX}{name}.{factor}": getattr(layer, factor)
        for name, layer in layers.items()
        for factor in "ABC"
    } | {f"{HEAD_PREFIX}{name}": parameter for name, parameter in head.items()}
    stored = {name: _to_store(tensor) for name, tensor in tensors.items()}
    description = {
        "format_version": FORMAT_VERSION,
        "method": "dcft",
        "config": {
            **asdict(config),
            "stride": config.effective_stride,
            "targets": list(config.targets),
        },
        "modules": [
            {
                key: value
                for key, value in asdict(as_module(layer.target)).items()
                if value not in (None, False)
            }
            for layer in layers.values()
            if layer.target
        ],
        "head": {name: list(parameter.shape) for name, parameter in head.items()},
        "base": {
            "name": base_name,
            "revision": base_revision,
            "fingerprint": base_fingerprint or fingerprint(model, exclude=head.keys()),
        },
        "model": describe(model),
        "info": dict(info or {}),
        "versions": {name: found for name in _LIBRARIES if (found := _version(name))},
        "checksums": [checksum(tensor.numpy().tobytes()) for tensor in stored.values()],
    }
    text = json.dumps(description, separators=(",", ":"))
    metadata = {"format": "pt", "dcft": text, "dcft_crc32": checksum(text.encode())}
    with atomic_path(path) as temporary:
        temporary.write_bytes(_safetensors(stored, metadata))
    return path


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
    """Return a safetensors file of float32 tensors in this order.

    The library's own writer puts metadata in random order; here the same adapter always gives
    the same bytes.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    body = bytearray()
    for name, tensor in tensors.items():
        start = len(body)
        body += tensor.numpy().tobytes()
        offsets = [start, len(body)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the tensors
    return struct.pack("<Q", len(text)) + text + bytes(body)


def _to_store(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
