"""`dcft merge`: fold an adapter into its base, and prove that the result answers the same."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from dcft_cli.adapter.contents import AdapterContents, read_adapter
from dcft_cli.adapter.file import load_adapter
from dcft_cli.adapter.inject import merge as fold
from dcft_cli.errors import AdapterFileError, MergeError, RunError
from dcft_cli.models import load_config, load_model, load_tokenizer, quiet_transformers
from dcft_cli.recipe import ModelSection
from dcft_cli.runs.folder import adapter_file

TOLERANCE = 1e-4  # largest logit difference, float32
_PROBES, _PROBE_LENGTH = 8, 32


@dataclass(frozen=True)
class MergeResult:
    """A merged model.

    Attributes:
        difference: largest logit difference between base + adapter and the merged folder.
        model_class: the transformers class that loads the folder.
        layers: layers that an adapter was folded into.
        bytes: of all files written.
    """

    folder: Path
    difference: float
    model_class: str
    layers: int
    bytes: int


def merge(base: str, adapter: str, out: str) -> MergeResult:
    """Writes base + adapter as a plain transformers folder in float32.

    The folder is written beside its place and moved there after the proof: the merged model,
    loaded as any user would, against base + adapter on random inputs.

    Args:
        base: Hub name, folder or `package://` address of the base model.
        adapter: run folder, checkpoint folder or adapter file.
        out: folder to write; must not exist, or be empty.

    Raises:
        UserError: an output that exists, or an adapter that does not belong to this base.
        MergeError: the merged model's logits differ by more than 1e-4; nothing is kept.
    """
    quiet_transformers()
    folder = Path(out).expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists already.", "Give another folder, or remove it.")
    contents = read_adapter(adapter_file(adapter))
    section = ModelSection(name=base, revision=_revision(base, contents))
    model = load_adapter(_base_model(section, contents), contents.path)
    model.train(False)
    tokenizer = load_tokenizer(section)
    probes = _probes(model)
    expected = _logits(model, probes)
    fold(model)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        for file in beside.iterdir():  # safetensors shuts its files to all but their owner
            file.chmod((beside / "config.json").stat().st_mode)
        model_class = str(contents.model["class"])
        merged = getattr(transformers, model_class).from_pretrained(beside, dtype=torch.float32)
        difference = _largest_difference(_logits(merged.train(False), probes), expected)
        if not difference <= TOLERANCE:
            raise MergeError(
                f"The merged model differs from base + adapter by {difference:.2e} in its logits "
                f"(allowed: {TOLERANCE:.0e}). Nothing was written.",
                "This is a defect of dcft or of the model's code: please report it.",
            )
        if folder.exists():
            folder.rmdir()
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return MergeResult(
        folder=Path(out),
        difference=difference,
        model_class=model_class,
        layers=len(contents.modules),
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
    )


def _base_model(section: ModelSection, contents: AdapterContents) -> PreTrainedModel:
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
    return load_model(section, load_config(section, settings), name).model


def _revision(base: str, contents: AdapterContents) -> str | None:
    """The revision that was trained on, where the base is the one that the adapter names."""
    return contents.base["revision"] if base == contents.base["name"] else None


def _probes(model: PreTrainedModel) -> dict[str, Tensor]:
    """Random token ids of several lengths, padded on the right."""
    config = model.config
    generator = torch.Generator().manual_seed(0)
    length = min(_PROBE_LENGTH, (getattr(config, "max_position_embeddings", None) or 514) - 2)
    ids = torch.randint(int(config.vocab_size), (_PROBES, length), generator=generator)
    lengths = torch.linspace(2, length, _PROBES).long()
    mask = (torch.arange(length) < lengths[:, None]).long()
    return {
        "input_ids": ids.masked_fill(mask == 0, config.pad_token_id or 0),
        "attention_mask": mask,
    }


@torch.no_grad()
def _logits(model: PreTrainedModel, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Every tensor of a model's output: logits, or start and end logits."""
    return [value for value in model(**inputs).to_tuple() if isinstance(value, Tensor)]


def _largest_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    pairs = zip(found, expected, strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)
