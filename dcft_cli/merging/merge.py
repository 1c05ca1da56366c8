"""`dcft merge`: fold an adapter into its base, and prove that the result answers the same."""

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dcft_cli.adapter.inject import merge as fold
from dcft_cli.adapter_file.load import load_adapter
from dcft_cli.adapter_file.read import AdapterContents, read_adapter
from dcft_cli.errors import AdapterFileError, MergeError, RunError
from dcft_cli.merging.checkpoints import NotStreamableError
from dcft_cli.merging.proof import TOLERANCE, largest_difference, logits, probes
from dcft_cli.merging.streamed_merge import MergeTask, Proof, merge_streamed
from dcft_cli.models.loading import load_config, load_model, quiet_transformers
from dcft_cli.models.tokenizers import agree_on_padding, load_tokenizer
from dcft_cli.recipe import ModelSection
from dcft_cli.runs.folder import adapter_file

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

    Each sum is taken in float64 and rounded to float32, then once to the type of the base's
    checkpoint or the one asked for. The folder is written beside its place and moved there after
    the proof, which is made of the folder as transformers loads it. Weights are read, merged,
    written and proved one by one (`merge_streamed` says how); a model that transformers
    makes of other tensors than its checkpoint has, or of other files than safetensors, is merged
    as a whole in memory, with the logits alone as proof.

    Args:
        base: Hub name, folder or `package://` address of the base model.
        adapter: run folder, checkpoint folder or adapter file.
        out: folder to write; must not exist, or be empty.
        dtype: of the weights written; "base": as the base's checkpoint has them.

    Raises:
        UserError: an output that exists, or an adapter that does not belong to this base.
        MergeError: the logits differ by more than 1e-4, or a weight is not what it should be;
            nothing is kept.
    """
    quiet_transformers()
    folder = Path(out).expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists already.", "Give another folder, or remove it.")
    contents = read_adapter(adapter_file(adapter))
    section = ModelSection(name=base, revision=_revision(base, contents))
    stored = _stored_type(section, dtype)
    tokenizer = load_tokenizer(section)
    model_class = str(contents.model["class"])
    config = _config(section, contents, tokenizer)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    task = MergeTask(section, contents, config, model_class, stored, beside)
    try:
        proof = _merge(task)
        if not proof.difference <= TOLERANCE:
            raise MergeError(
                f"The merged model differs from base + adapter by {proof.difference:.2e} "
                f"in its logits (allowed: {TOLERANCE:.0e}). Nothing was written.",
                "This is a defect of dcft or of the model's code: please report it.",
            )
        tokenizer.save_pretrained(beside)
        for file in beside.iterdir():  # safetensors shuts its files to all but their owner
            if file.is_file():
                file.chmod((beside / "config.json").stat().st_mode)
        if folder.exists():
            folder.rmdir()
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return MergeResult(
        folder=Path(out),
        difference=proof.difference,
        dtype=str(stored).removeprefix("torch."),
        rounding=proof.rounding,
        model_class=model_class,
        layers=len(contents.modules),
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
    )


def _merge(task: MergeTask) -> Proof:
    """Tensor by tensor if that can be."""
    try:
        shutil.rmtree(task.folder, ignore_errors=True)  # of a run that was killed
        task.folder.mkdir(parents=True)
        return merge_streamed(task)
    except NotStreamableError:
        shutil.rmtree(task.folder)
        return merge_whole(task)


def merge_whole(task: MergeTask) -> Proof:
    """Writes weights and configuration with the whole model in memory, in float32.

    The proof: the merged model against base + adapter on random inputs, and the folder, loaded
    as any user would, against the merged model.
    """
    base = load_model(task.section, task.config, task.model_class).model
    model = load_adapter(base, task.contents.path)
    model.train(False)
    inputs = probes(model)
    expected = logits(model, inputs)
    fold(model)
    merged = logits(model, inputs)
    difference = largest_difference(merged, expected)
    rounding = None
    if task.stored != torch.float32:
        _cast(model, task.stored)
        _cast(model, torch.float32)
        rounded = logits(model, inputs)
        rounding = largest_difference(rounded, merged)
        merged = rounded
        _cast(model, task.stored)
    model.save_pretrained(task.folder)
    loaded = type(model).from_pretrained(task.folder, dtype=torch.float32)
    reloaded = largest_difference(logits(loaded.train(False), inputs), merged)
    # Not a number counts as the largest: max() would lose it.
    return Proof(max(difference, reloaded, key=lambda d: (math.isnan(d), d)), rounding)


def _stored_type(section: ModelSection, dtype: DTypeChoice) -> torch.dtype:
    """The type to write weights in."""
    if dtype != "base":
        return getattr(torch, dtype)  # type: ignore[no-any-return]
    found = load_config(section, {}).dtype
    if isinstance(found, torch.dtype) and found.is_floating_point:
        return found
    return torch.float32


def _config(
    section: ModelSection, contents: AdapterContents, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedConfig:
    """The base's configuration with the labels that the adapter was trained for."""
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
    return config


def _revision(base: str, contents: AdapterContents) -> str | None:
    """The revision that was trained on, where the base is the one that the adapter names."""
    return contents.base["revision"] if base == contents.base["name"] else None


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Parameters alone: tables of positions are computed anew when the model is loaded."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
