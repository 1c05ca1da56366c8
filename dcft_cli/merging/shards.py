"""Write a merged model in safetensors files with the layout of its base's checkpoint."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from dcft_cli.adapter.inject import base_parameters
from dcft_cli.errors import MergeError
from dcft_cli.models.loading import revision_of, source_of
from dcft_cli.recipe import ModelSection

Layout = Sequence[Sequence[str]]  # names of the tensors in each file


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


def find_layout(
    model: PreTrainedModel, files: Sequence[Path], *, trained: Collection[str]
) -> Layout | None:
    """Find which file of its checkpoint each tensor of a base model comes from.

    Names may differ only by the prefix of the encoder, which a checkpoint without a task head
    lacks. Values are compared too: transformers converts some weights without renaming them.

    Args:
        model: the base, with or without adapters.
        files: of the checkpoint.
        trained: parameters whose values the adapter file decides.

    Returns:
        Names in the model, by file; tensors that no file has (the trained head) are in the last
        one. None if a parameter that was not trained is in no file: transformers renames it, or
        makes it out of others.
    """
    missing = _tensors(model)
    prefix = f"{model.base_model_prefix}."
    layout: list[list[str]] = []
    for path in files:
        names: list[str] = []
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (a file cannot be iterated)
                for name in {key, f"{prefix}{key}", key.removeprefix(prefix)} & missing.keys():
                    stored = file.get_tensor(key).to(missing[name].dtype)
                    if name not in trained and _same_bits(stored, missing[name]):
                        names.append(name)
                        del missing[name]
        if names:
            layout.append(names)
    if not layout or (base_parameters(model).keys() & missing.keys()) - set(trained):
        return None
    layout[-1] += missing
    return layout


def write_shards(model: PreTrainedModel, layout: Layout, folder: Path) -> None:
    """Write the weights of a model, and read every file again to check it.

    Args:
        layout: names of the tensors in each file.

    Raises:
        MergeError: a file cannot be written, or does not hold what the model has.
    """
    tensors = _tensors(model)
    weight_map: dict[str, str] = {}
    total_size = 0
    for number, names in enumerate(layout, start=1):
        path = folder / f"model-{number:05d}-of-{len(layout):05d}.safetensors"
        if len(layout) == 1:
            path = folder / SAFE_WEIGHTS_NAME
        total_size += _write({name: tensors[name] for name in names}, path)
        weight_map |= dict.fromkeys(names, path.name)
    if len(layout) > 1:
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(text, encoding="utf-8")


def _tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return parameters and saved buffers under their names in a model without adapters."""
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return {name: t.detach() for name, t in (base_parameters(model) | buffers).items()}


def _write(tensors: dict[str, Tensor], path: Path) -> int:
    """Write a file and check it; return the bytes of its tensors."""
    save_file(tensors, path, {"format": "pt"})
    with safe_open(path, "pt") as file:
        for name, tensor in tensors.items():
            if not _same_bits(file.get_tensor(name), tensor):
                raise MergeError(
                    f"{name} was not written as it was computed. Nothing was kept.",
                    "Check the disk. If it is sound, this is a defect of dcft: please report it.",
                )
    return sum(tensor.nbytes for tensor in tensors.values())


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Compare bytes: NaN equals itself, and -0 differs from 0."""
    same_kind = (a.dtype, a.shape) == (b.dtype, b.shape)
    return same_kind and torch.equal(*(t.flatten().view(torch.uint8) for t in (a, b)))
