"""`dcft merge`: fold an adapter into its base, and prove that the result answers the same."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dcft_cli.adapter.contents import AdapterContents, read_adapter
from dcft_cli.adapter.file import load_adapter
from dcft_cli.adapter.inject import merge as fold
from dcft_cli.adapter.reach import example_of
from dcft_cli.errors import AdapterFileError, MergeError, RunError
from dcft_cli.models import head_outputs, load_config, load_model, quiet_transformers
from dcft_cli.recipe import ModelSection
from dcft_cli.runs.folder import adapter_file
from dcft_cli.tokenizers import agree_on_padding, load_tokenizer

TOLERANCE = 1e-4  # largest logit difference, float32
_PROBES, _PROBE_LENGTH = 8, 32
DTypeChoice = Literal["base", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class MergeResult:
    """A merged model.

    Attributes:
        difference: largest logit difference between base + adapter and the merged model, in
            float32.
        dtype: type that the weights are stored in.
        rounding: largest logit difference that storing them in that type makes; None for float32.
        model_class: the transformers class that loads the folder.
        layers: layers that an adapter was folded into.
        bytes: of all files written.
    """

    folder: Path
    difference: float
    dtype: str
    rounding: float | None
    model_class: str
    layers: int
    bytes: int


def merge(base: str, adapter: str, out: str, *, dtype: DTypeChoice = "base") -> MergeResult:
    """Writes base + adapter as a plain transformers folder.

    Merged in float32 and rounded once, to the type of the base's checkpoint or the one asked for.
    The folder is written beside its place and moved there after the proof: the merged model
    against base + adapter on random inputs in float32, and the folder, loaded as any user would,
    against the merged model.

    Args:
        base: Hub name, folder or `package://` address of the base model.
        adapter: run folder, checkpoint folder or adapter file.
        out: folder to write; must not exist, or be empty.
        dtype: of the weights written; "base": as the base's checkpoint has them.

    Raises:
        UserError: an output that exists, or an adapter that does not belong to this base.
        MergeError: the logits differ by more than 1e-4; nothing is kept.
    """
    quiet_transformers()
    folder = Path(out).expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists already.", "Give another folder, or remove it.")
    contents = read_adapter(adapter_file(adapter))
    section = ModelSection(name=base, revision=_revision(base, contents))
    stored = _stored_type(section, dtype)
    tokenizer = load_tokenizer(section)
    model = load_adapter(_base_model(section, contents, tokenizer), contents.path)
    model.train(False)
    probes = _probes(model)
    expected = _logits(model, probes)
    fold(model)
    merged = _logits(model, probes)
    difference = _largest_difference(merged, expected)
    rounding = None
    if stored != torch.float32:
        _cast(model, stored)
        _cast(model, torch.float32)
        rounded = _logits(model, probes)
        rounding = _largest_difference(rounded, merged)
        merged = rounded
        _cast(model, stored)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        for file in beside.iterdir():  # safetensors shuts its files to all but their owner
            file.chmod((beside / "config.json").stat().st_mode)
        model_class = str(contents.model["class"])
        loaded = getattr(transformers, model_class).from_pretrained(beside, dtype=torch.float32)
        reloaded = _largest_difference(_logits(loaded.train(False), probes), merged)
        if not max(difference, reloaded) <= TOLERANCE:
            raise MergeError(
                f"The merged model differs from base + adapter by {max(difference, reloaded):.2e} "
                f"in its logits (allowed: {TOLERANCE:.0e}). Nothing was written.",
                "This is a defect of dcft or of the model's code: please report it.",
            )
        if folder.exists():
            folder.rmdir()
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return MergeResult(
        folder=Path(out),
        difference=max(difference, reloaded),
        dtype=str(stored).removeprefix("torch."),
        rounding=rounding,
        model_class=model_class,
        layers=len(contents.modules),
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
    )


def _stored_type(section: ModelSection, dtype: DTypeChoice) -> torch.dtype:
    """The type to write weights in."""
    if dtype != "base":
        return getattr(torch, dtype)  # type: ignore[no-any-return]
    found = load_config(section, {}).dtype
    if isinstance(found, torch.dtype) and found.is_floating_point:
        return found
    return torch.float32


def _base_model(
    section: ModelSection, contents: AdapterContents, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """The base in the class that the adapter was trained in, with its labels."""
    name = str(contents.model["class"])
    cls = getattr(transformers, name, None)
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)):
        raise AdapterFileError(
            f"{contents.path} was trained on a {name}, which transformers "
            f"{transformers.__version__} does not know.",
            "Merge it in Python: load_adapter(model, path), then merge(model).",
        )
    settings = {}
    if labels := contents.model["labels"]:
        settings = {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: number for number, label in enumerate(labels)},
            "problem_type": contents.model["problem_type"],
        }
    config = load_config(section, settings)
    agree_on_padding(section, config, tokenizer)
    return load_model(section, config, name).model


def _revision(base: str, contents: AdapterContents) -> str | None:
    """The revision that was trained on, where the base is the one that the adapter names."""
    return contents.base["revision"] if base == contents.base["name"] else None


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Parameters alone: tables of positions are computed anew when the model is loaded."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _probes(model: PreTrainedModel) -> dict[str, Tensor]:
    """Random token ids of several lengths, padded on the right."""
    positions = getattr(model.config, "max_position_embeddings", None) or 0  # XLNet's are -1
    length = min(_PROBE_LENGTH, positions - 2) if positions > 2 else _PROBE_LENGTH
    probes = example_of(model, _PROBES, length)
    if probes is None:
        raise MergeError(
            f"A {type(model).__name__} does not read token ids: the merged model cannot be proved.",
            "Merge it in Python: load_adapter(model, path), then merge(model).",
        )
    return probes


@torch.no_grad()
def _logits(model: PreTrainedModel, inputs: dict[str, Tensor]) -> list[Tensor]:
    """What the head of a model says."""
    return head_outputs(model(**inputs))


def _largest_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    pairs = zip(found, expected, strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)
