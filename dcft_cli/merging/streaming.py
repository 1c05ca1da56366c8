"""Writing base + adapter tensor by tensor, and comparing what was written with it."""

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from dcft_cli.errors import MergeError
from dcft_cli.merging.checkpoints import LENGTH, TYPES, MappedCheckpoint, NotStreamableError
from dcft_cli.merging.merged_tensors import MergedTensors, one_thread

_WORKERS = 2  # tensors in work at once
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_NAMES = {dtype: name for name, dtype in TYPES.items()}


@dataclass(frozen=True)
class Place:
    """Where a tensor of a model is in its checkpoint.

    Attributes:
        name: of the parameter or buffer.
        written: its name in the merged checkpoint.
        shard: the file of the base that has it; None: it is in none, as is a trained head.
    """

    name: str
    written: str
    shard: Path | None


@dataclass(frozen=True)
class _Spot:
    """Where in a file a tensor is written: its first byte, and how many there are."""

    file: Path
    name: str
    start: int
    length: int


def places(
    model: PreTrainedModel, checkpoint: MappedCheckpoint, *, free: Collection[str]
) -> list[Place]:
    """Finds the tensors of a model in the checkpoint that it was loaded from, in place.

    A parameter is a tensor of the checkpoint if both are the same memory, whatever the names:
    so transformers itself says what it makes of the checkpoint. Names are kept, but for the
    prefix of the encoder, which a checkpoint without a task head lacks.

    Args:
        model: without adapters.
        free: parameters that need not be in the checkpoint.

    Raises:
        NotStreamableError: transformers made a parameter out of others, or in another type.
    """
    keys = {tensor.data_ptr(): key for key, tensor in checkpoint.tensors.items()}
    shapes = {tensor.data_ptr(): tensor.shape for tensor in checkpoint.tensors.values()}
    made = [
        name
        for name, p in model.named_parameters()
        if name not in free and (shapes.get(p.data_ptr()) != p.shape or not p.is_contiguous())
    ]
    if made:
        raise NotStreamableError(f"{made[0]} is no tensor of the checkpoint")
    prefix = f"{model.base_model_prefix}."
    found: dict[int, Place] = {}
    for name, tensor in model.state_dict().items():
        key = keys.get(tensor.data_ptr())
        alike = key in (None, name.removeprefix(prefix), f"{prefix}{name}")
        written = name if alike or key is None else key
        shard = None if key is None else checkpoint.files[key]
        found.setdefault(tensor.data_ptr(), Place(name, written, shard))  # the first of tied ones
    if len({place.written for place in found.values()}) < len(found):
        raise NotStreamableError("two tensors would have the same name")
    order = {address: number for number, address in enumerate(keys)}
    return [found[address] for address in sorted(found, key=lambda a: order.get(a, len(order)))]


def write_merged(
    folder: Path,
    tensors: MergedTensors,
    found: Sequence[Place],
    read: Callable[[str, Tensor], object],
    wrote: Callable[[Path], object],
) -> list[Path]:
    """Writes a checkpoint in as many files as the base has; those of the trained head last.

    Args:
        read: is called with each name and base tensor when it has been read, from any thread.
        wrote: is called with each file of weights when it is whole.

    Returns:
        The files.
    """
    shards: dict[Path | None, list[Place]] = {}
    for place in found:
        shards.setdefault(place.shard, []).append(place)
    if None in shards and len(shards) > 1:
        alone = shards.pop(None)
        shards[list(shards)[-1]] += alone
    files = [folder / SAFE_WEIGHTS_NAME]
    if len(shards) > 1:
        files = [
            folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            for number in range(1, len(shards) + 1)
        ]
    begun = [_begin(*entry, tensors) for entry in zip(files, shards.values(), strict=True)]
    spots = list(_in_turn(begun))

    def write(spot: _Spot) -> None:
        with spot.file.open("r+b") as file:
            file.seek(spot.start)
            for part in tensors.parts(spot.name):
                file.write(part.view(torch.uint8).numpy().data)
        read(spot.name, tensors.stored[spot.name])

    missing = Counter(spot.file for spot in spots)
    with one_thread(), ThreadPoolExecutor(_WORKERS) as pool:
        for spot, _ in zip(spots, pool.map(write, spots), strict=True):
            missing[spot.file] -= 1
            if not missing[spot.file]:
                wrote(spot.file)
    if len(files) > 1:
        pairs = zip(files, shards.values(), strict=True)
        homes = {place.written: file.name for file, some in pairs for place in some}
        size = sum(spot.length for spot in spots)
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(homes.items()))}
        text = json.dumps(index, indent=2) + "\n"
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(text, encoding="utf-8")
    return files


def _in_turn(files: Sequence[Sequence[_Spot]]) -> Iterator[_Spot]:
    """Goes through as many files at once as there are threads: those in one wait for each other."""
    for first in range(0, len(files), _WORKERS):
        for some in zip_longest(*files[first : first + _WORKERS]):
            yield from filter(None, some)


def _begin(path: Path, found: Sequence[Place], tensors: MergedTensors) -> list[_Spot]:
    """A safetensors file with nothing but its header. Returns where its tensors go."""
    # The widest numbers first: each tensor then lies where its type wants it.
    found = sorted(found, key=lambda place: -tensors.type_of(place.name).itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    spots, end = [], 0
    for place in found:
        dtype, shape = tensors.type_of(place.name), tensors.stored[place.name].shape
        start, end = end, end + shape.numel() * dtype.itemsize
        entry = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        header[place.written] = entry
        spots.append((place.name, start, end - start))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH.size)
    path.write_bytes(LENGTH.pack(len(text)) + text)
    body = LENGTH.size + len(text)
    return [_Spot(path, name, body + start, length) for name, start, length in spots]


def flush(path: Path) -> None:
    """Waits until a file is on the disk, or until the disk says that it cannot be."""
    with path.open("r+b") as file:  # Windows flushes what is open for writing alone
        os.fsync(file.fileno())


def compare(
    tensors: MergedTensors, found: Mapping[str, Tensor], release: Callable[[Tensor], None]
) -> None:
    """Compares every tensor of a loaded model, bit for bit, with base + adapter.

    Args:
        found: parameters and buffers by name.
        release: is called with each tensor when it has been read.

    Raises:
        MergeError: one differs.
    """

    def differs(name: str) -> bool:
        try:
            return not _same(tensors.parts(name), found[name].detach().flatten())
        finally:
            release(tensors.stored[name])
            release(found[name])

    with one_thread(), ThreadPoolExecutor(_WORKERS) as pool:
        for name, wrong in zip(found, pool.map(differs, found), strict=True):
            if wrong:
                raise MergeError(
                    f"{name} was not written as it was computed. Nothing was kept.",
                    "Is the disk sound? Otherwise this is a defect of dcft: please report it.",
                )


def _same(parts: Iterator[Tensor], flat: Tensor) -> bool:
    position = 0
    for part in parts:
        there = flat[position : position + part.numel()]
        if there.itemsize > part.itemsize:  # some models keep weights in float32 whatever is asked
            part = part.to(there.dtype)
        if part.dtype != there.dtype or not _same_bits(part, there):
            return False
        position += part.numel()
    return position == flat.numel()


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Compares flat tensors of a type as integers: there a NaN is itself, and -0 is not 0."""
    whole = all((t.storage_offset() * t.itemsize | t.nbytes) % 8 == 0 for t in (a, b))
    integers = torch.int64 if whole else _INTEGERS[a.itemsize]  # the widest are the fastest
    return torch.equal(a.view(integers), b.view(integers))
