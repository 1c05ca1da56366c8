"""Merge a safetensors checkpoint file by file: the layout of the base is kept."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from dcft_cli.adapter.inject import base_parameters
from dcft_cli.adapter.layer import Carrier
from dcft_cli.errors import MergeError
from dcft_cli.models.loading import revision_of, source_of
from dcft_cli.recipe import ModelSection


@dataclass(frozen=True)
class Shard:
    """A file of the base's checkpoint.

    Attributes:
        keys: names of its tensors in the file, by their names in the model.
    """

    path: Path
    keys: Mapping[str, str]


def checkpoint_files(section: ModelSection) -> list[Path]:
    """Return the safetensors files of a base model; none if it has no such checkpoint."""

    def find(name: str) -> Path:
        path = cached_file(source_of(section.name), name, revision=revision_of(section))
        return Path(str(path))

    try:
        return [find(SAFE_WEIGHTS_NAME)]
    except OSError:
        pass  # it may be in several files
    try:
        index = json.loads(find(SAFE_WEIGHTS_INDEX_NAME).read_text(encoding="utf-8"))
        return [find(name) for name in sorted(set(index["weight_map"].values()))]
    except OSError:
        return []


def find_shards(
    model: PreTrainedModel, files: Sequence[Path], *, trained: Collection[str]
) -> list[Shard] | None:
    """Find the tensors of a model in the checkpoint that it was loaded from.

    Names may differ only by the prefix of the encoder, which a checkpoint without a task head
    lacks. Values are compared too, because transformers converts some weights under their names.

    Args:
        model: the base, with or without adapters.
        trained: parameters whose values the adapter file has.

    Returns:
        The files that hold any of them; None if the files do not hold every other parameter: then
        transformers renames weights, or makes them out of others.
    """
    missing = {n: t for n, t in _base_tensors(model).items() if n not in trained}
    prefix = f"{model.base_model_prefix}."
    shards = []
    for path in files:
        keys: dict[str, str] = {}
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (a file cannot be iterated)
                for name in (key, f"{prefix}{key}", key.removeprefix(prefix)):
                    tensor = missing.get(name)
                    if tensor is None:
                        continue
                    if _same_bits(file.get_tensor(key).to(tensor.dtype), tensor):
                        keys[name] = key
                        del missing[name]
        if keys:
            shards.append(Shard(path, keys))
    complete = missing.keys().isdisjoint(base_parameters(model))
    return shards if shards and complete else None


@torch.no_grad()
def write_shards(
    model: PreTrainedModel, shards: Sequence[Shard], folder: Path, dtype: torch.dtype
) -> None:
    """Write base + adapter as a checkpoint, one file for each of the base, and check every file.

    Tensors that the base's checkpoint lacks (the trained head) go into the last file.

    Args:
        model: base + adapter, with the trained head.
        dtype: type to write; integers are kept.

    Raises:
        MergeError: a file cannot be written, or does not hold what was computed.
    """
    names = [SAFE_WEIGHTS_NAME]
    if len(shards) > 1:
        names = [f"model-{n + 1:05d}-of-{len(shards):05d}.safetensors" for n in range(len(shards))]
    tensors = _base_tensors(model)
    rest = set(tensors).difference(*(shard.keys for shard in shards))
    adapted = {id(m.matrix.parameter): m for m in model.modules() if isinstance(m, Carrier)}

    def merged(name: str, stored: Tensor) -> Tensor:
        if (carrier := adapted.get(id(tensors[name]))) is not None:
            stored = (stored.double() + carrier._increment(torch.float64)).float()
        return stored.to(dtype) if stored.is_floating_point() else stored

    weight_map: dict[str, str] = {}
    total_size = 0
    for shard, name in zip(shards, names, strict=True):
        with safe_open(shard.path, "pt") as file:
            written = {n: merged(n, file.get_tensor(key)) for n, key in shard.keys.items()}
        if shard is shards[-1]:
            written |= {n: merged(n, tensors[n]) for n in sorted(rest)}
        _write(folder / name, written)
        weight_map |= dict.fromkeys(written, name)
        total_size += sum(tensor.nbytes for tensor in written.values())
        del written  # before the next one is made
    if len(shards) > 1:
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(text, encoding="utf-8")


def _base_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return parameters and saved buffers under their names in a model without adapters."""
    saved = model.state_dict().keys()
    return base_parameters(model) | {n: b for n, b in model.named_buffers() if n in saved}


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        save_file(dict(tensors), path, {"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise MergeError(
            f"{path.name} cannot be written: {error}. Nothing was kept.",
            "Is there enough space on the disk?",
        ) from error
    with safe_open(path, "pt") as file:
        for name, tensor in tensors.items():
            if not _same_bits(file.get_tensor(name), tensor):
                raise MergeError(
                    f"{name} was not written as it was computed. Nothing was kept.",
                    "Check the disk. If it is sound, this is a defect of dcft: please report it.",
                )


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Compare bytes: NaN equals itself, and -0 differs from 0."""
    same_kind = (a.dtype, a.shape) == (b.dtype, b.shape)
    return same_kind and torch.equal(*(t.flatten().view(torch.uint8) for t in (a, b)))
