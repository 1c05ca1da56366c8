"""Writing adapter files, and putting what they hold into a model."""

import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.adapter.contents import (
    ADAPTER_FILE,
    ADAPTER_PREFIX,
    FORMAT_VERSION,
    HEAD_PREFIX,
    AdapterContents,
    checksum,
    read_adapter,
)
from dcft_cli.adapter.fingerprint import fingerprint
from dcft_cli.adapter.increment import DCFTAdapter
from dcft_cli.adapter.inject import M, adapter_layers, base_parameters, head_parameters, insert
from dcft_cli.adapter.module import Module
from dcft_cli.adapter.targets import Target, find_weights
from dcft_cli.errors import AdapterFileError, ModelError, TargetError

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
    """Writes the adapters of a model, and what is trained besides them, to one file.

    The file is written beside its place and moved there when it is whole.

    Args:
        model: a model with adapters.
        path: the file; `adapter.safetensors` inside it if `path` is a folder.
        base_name, base_revision: what the base model is called.
        base_fingerprint: of the base weights; None computes it.
        info: anything JSON can hold about task, labels and data; kept as it is.

    Returns:
        The file's path.

    Raises:
        ModelError: the model has no adapters.
    """
    layers, head = adapter_layers(model), head_parameters(model)
    if not layers:
        raise ModelError("The model has no DCFT adapters to save.", "Insert them first: inject().")
    path = _file_in(Path(path))
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
        "config": {**asdict(config), "stride": config.window_step, "targets": list(config.targets)},
        "modules": [
            {
                key: value
                for key, value in asdict(as_module(layer)).items()
                if value not in (None, False)
            }
            for layer in layers.values()
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
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(_safetensors(stored, metadata))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def load_adapter(
    model: M, path: str | Path, *, check_base: bool = True, base_fingerprint: str | None = None
) -> M:
    """Inserts a saved adapter into its base model, in place, head included.

    Args:
        model: the base model, of the class that the adapter was trained with, with as many
            labels (a task head with fresh weights is overwritten).
        path: an adapter file, or a folder with `adapter.safetensors` in it.
        check_base: refuse a model whose frozen weights are not those the adapter was trained on.
        base_fingerprint: of the base weights; None computes it. A quantised model's cannot be
            computed: it is that of the weights in full precision.

    Returns:
        The same model, everything frozen but the adapters and the head.

    Raises:
        AdapterFileError: a damaged file, or one that was made for another base model.
        TargetError: the model has adapters already.
    """
    contents = read_adapter(_file_in(Path(path)))
    targets = _places(model, contents)
    if check_base and contents.base["fingerprint"]:
        refuse_other_base(
            contents, base_fingerprint or fingerprint(model, exclude=contents.head.keys())
        )
    insert(model, targets, contents.config, head=contents.head.keys())
    load_tensors(model, contents)
    return model


def refuse_other_base(contents: AdapterContents, found: str) -> None:
    """Compares the fingerprint of a base's weights with that of the ones trained on.

    Raises:
        AdapterFileError: they are others.
    """
    wanted = contents.base["fingerprint"]
    if wanted and found != wanted:
        raise AdapterFileError(
            f"{contents.path} was trained on other base weights: "
            f"{contents.base['name'] or 'its base'} with fingerprint {_short(wanted)}; "
            f"this model's is {_short(found)}.",
            "Load the base model (and revision) that the adapter names, see `dcft inspect`.",
        )


@torch.no_grad()
def load_tensors(model: nn.Module, contents: AdapterContents) -> None:
    """Copies the tensors of a file into a model that has its adapters already."""
    parameters = base_parameters(model)
    for name, tensor in contents.head.items():
        assert parameters[name].shape == tensor.shape, name  # copy_ would broadcast
        parameters[name].copy_(torch.tensor(tensor))
    for name, layer in adapter_layers(model).items():
        for factor, tensor in contents.factors[name].items():
            getattr(layer, factor).copy_(torch.tensor(tensor))


def _places(model: nn.Module, contents: AdapterContents) -> list[Target]:
    """Where the modules of a file belong in a model; every shape is checked, the head's too."""
    if adapter_layers(model):
        raise TargetError(
            "The model has DCFT adapters already.", "Remove them first: remove_adapters(model)."
        )
    weights = find_weights(model)
    targets = [Target(m.name, m.role, weights.get(m.weight, ()), m.rows) for m in contents.modules]
    for target, module in zip(targets, contents.modules, strict=True):
        if not target.matrices:
            raise _no_fit(model, contents, f"{module.weight}, which the model lacks")
        rows = target.matrix.out_features
        sizes = (target.matrix.count, target.out_features, target.in_features)
        wanted = (module.count, module.out_features, module.in_features)
        if sizes != wanted or (target.rows and target.rows[1] > rows):
            have = _by(wanted)
            if module.rows:
                have += f" (rows {module.rows[0]} to {module.rows[1] - 1})"
            real = _by((target.matrix.count, rows, target.in_features))
            raise _no_fit(model, contents, f"{module.name} of shape {have}, the model has {real}")
    parameters = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for name, tensor in contents.head.items():
        if parameters.get(name) != tensor.shape:
            found = parameters.get(name, "nothing of this name")
            raise _no_fit(model, contents, f"{name} of shape {tensor.shape}, the model has {found}")
    return targets


def _by(sizes: Iterable[int | None]) -> str:
    return " x ".join(str(size) for size in sizes if size is not None)


def _no_fit(model: nn.Module, contents: AdapterContents, difference: str) -> AdapterFileError:
    return AdapterFileError(
        f"{contents.path} does not fit this model ({type(model).__name__}): it has {difference}.",
        f"It was trained on {contents.base['name'] or 'another base model'}.",
    )


def as_module(place: Target | DCFTAdapter) -> Module:
    """How a file describes an adapter, or a place for one."""
    return Module(
        name=place.name,
        role=place.role,
        out_features=place.out_features,
        in_features=place.in_features,
        weight=place.matrix.parameter_name,
        rows=place.rows,
        count=place.matrix.count,
        transposed=place.matrix.transposed,
    )


def describe(model: nn.Module) -> dict[str, Any]:
    """What it takes to build the model again: its class, and its labels if it has any."""
    config = getattr(model, "config", None)
    labels = getattr(config, "id2label", None) or {}
    return {
        "class": type(model).__name__,
        "labels": [labels[number] for number in sorted(labels)],
        "problem_type": getattr(config, "problem_type", None),
    }


def _safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of float32 tensors in their order.

    The library's own writer puts metadata in a random order; here the same adapter always gives
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


def _file_in(path: Path) -> Path:
    return path / ADAPTER_FILE if path.is_dir() else path


def _to_store(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _short(fingerprint: str) -> str:
    return fingerprint[: len("sha256:") + 12]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
