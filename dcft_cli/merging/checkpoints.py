"""Checkpoints of safetensors files, mapped into memory: read in place, and given back at once."""

import json
import mmap
import struct
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from dcft_cli.models.loading import revision_of, source_of
from dcft_cli.recipe import ModelSection

LENGTH = struct.Struct("<Q")  # of the header, at the start of a safetensors file
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_SMALL = 1 << 16  # bytes that are not worth giving back


class NotStreamableError(Exception):
    """A checkpoint that cannot be merged tensor by tensor: it takes the whole model."""


class MappedCheckpoint:
    """The tensors of safetensors files, mapped: none is in memory before it is read.

    The mapping is private, so that nothing done to a tensor reaches a file. What is read stays
    in memory until it is released, or until the system needs the room.

    Args:
        files: whole safetensors files.

    Attributes:
        tensors: by name, in the order of the files and of their places in them.
        files: which of them a tensor is in.

    Raises:
        NotStreamableError: a file cannot be read, or holds types that are not known here.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.files: dict[str, Path] = {}
        self._areas: list[tuple[int, mmap.mmap]] = []
        for path in files:
            try:
                self._map(path)
            except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
                raise NotStreamableError(f"{path}: {error}") from error
        self._areas.sort(key=lambda area: area[0])
        self._starts = [start for start, _ in self._areas]

    def _map(self, path: Path) -> None:
        with path.open("rb") as file:
            area = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._areas.append((torch.frombuffer(area, dtype=torch.uint8).data_ptr(), area))
        body = LENGTH.size + LENGTH.unpack_from(area)[0]
        header = json.loads(area[LENGTH.size : body])
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape = TYPES[entry["dtype"]], entry["shape"]
            first, end = entry["data_offsets"]
            count = (end - first) // dtype.itemsize
            # Raises ValueError for a place outside the file, and for a tensor without numbers.
            flat = torch.frombuffer(area, dtype=dtype, count=count, offset=body + first)
            if torch.Size(shape).numel() != count:
                raise ValueError(f"{name} has {count} numbers, not {shape}")
            self.tensors[name] = flat.view(shape)
            self.files[name] = path

    def release(self, tensor: Tensor) -> None:
        """Gives back the memory of a tensor of this checkpoint, or of a view of one.

        It can be read again: from the file. Any other tensor is left as it is, and so are all
        where the system has no call for it.
        """
        storage = tensor.untyped_storage()
        first, size = storage.data_ptr(), storage.nbytes()
        number = bisect_right(self._starts, first) - 1
        if size < _SMALL or number < 0 or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start, area = self._areas[number]
        if first + size > start + len(area):
            return
        page = (first - start) // mmap.PAGESIZE * mmap.PAGESIZE
        area.madvise(mmap.MADV_DONTNEED, page, first - start + size - page)


def safetensors_files(section: ModelSection, config: PreTrainedConfig) -> list[Path]:
    """The files of a base model's checkpoint.

    Raises:
        NotStreamableError: it is not a checkpoint of safetensors files.
    """
    source, revision = source_of(section.name), revision_of(section)
    if getattr(config, "transformers_weights", None) or getattr(config, "extra_files", ()):
        raise NotStreamableError("its files have names of their own")
    try:
        return [Path(str(cached_file(source, SAFE_WEIGHTS_NAME, revision=revision)))]
    except OSError:
        pass  # it may be in several files
    try:
        index = cached_file(source, SAFE_WEIGHTS_INDEX_NAME, revision=revision)
        found = get_checkpoint_shard_files(source, index, revision=revision)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise NotStreamableError("no safetensors files") from error
    return [Path(file) for file in found[0]]
