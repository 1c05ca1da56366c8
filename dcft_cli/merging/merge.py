"""`dcft merge`: merge an adapter into its base model and verify the result."""

import gc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dcft_cli.adapter_file.contents import Contents
from dcft_cli.adapter_file.read import read_contents
from dcft_cli.atomic import atomic_path
from dcft_cli.errors import AdapterFileError, MergeError
from dcft_cli.merging.output import new_folder, save_tokenizer
from dcft_cli.merging.proof import TOLERANCE, largest_difference, load_merged, logits, probes
from dcft_cli.merging.shards import checkpoint_files, find_layout, write_shards
from dcft_cli.methods.build import build
from dcft_cli.methods.load import load_method, settings_of
from dcft_cli.models.loading import load_config, load_model, quiet_transformers
from dcft_cli.models.tokenizers import agree_on_padding, load_tokenizer
from dcft_cli.recipe import ModelSection, load_recipe
from dcft_cli.runs.folder import adapter_file, recipe_beside

DTypeChoice = Literal["base", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class MergeResult:
    """A merged model.

    Attributes:
        base: name of the base model.
        difference: largest logit difference between base + adapter and the merged model, in
            float32 (`proof.largest_difference`).
        dtype: type that the weights are stored in.
        rounding: largest logit difference that rounding to that type makes; None for float32.
        model_class: the transformers class that loads the folder.
        layers: number of adapted layers.
        bytes: of all files written.
    """

    folder: Path
    base: str
    difference: float
    dtype: str
    rounding: float | None
    model_class: str
    layers: int
    bytes: int


def merge(base: str | None, adapter: str, out: str, *, dtype: DTypeChoice = "base") -> MergeResult:
    """Write base + adapter as a plain transformers folder.

    Each sum W + dW is computed in float64 and rounded to float32, then once to the type written.
    The folder is written under a temporary name and renamed after the proof: it is loaded as any
    program would load it, and its logits must be those of base + adapter. Files of a safetensors
    checkpoint are written one by one, and each is compared with what was computed, bit for bit. If
    transformers renames or converts the weights of a checkpoint, the model is saved as a whole.

    One model is held in memory at a time, in float32, and the file that is being written.

    Args:
        base: Hub name, folder or `package://` address of the base model; None: the one that the
            adapter's run or file names.
        adapter: run folder, checkpoint folder or adapter file.
        out: folder to write; must not exist, or be empty.
        dtype: of the weights written; "base": the type in the base's configuration.

    Raises:
        UserError: the output exists, or the adapter does not belong to this base.
        MergeError: the logits differ by more than 1e-4, or a file does not hold what was computed;
            nothing is kept.
    """
    quiet_transformers()
    with new_folder(out) as folder:
        return replace(_merge(base, adapter, folder, dtype), folder=Path(out))


def _merge(base: str | None, adapter: str, folder: Path, dtype: DTypeChoice) -> MergeResult:
    """Write base + adapter into a new folder; see `merge`."""
    contents = read_contents(adapter_file(adapter))
    build(settings_of(contents), seed=0).refuse_unmergeable()  # before anything is loaded
    section = base_section(base, contents)
    tokenizer = load_tokenizer(section)
    config = trained_config(section, contents, tokenizer)
    stored = _stored_type(config, dtype)
    model_class = str(contents.model["class"])
    with atomic_path(folder) as part:
        part.mkdir()
        difference, rounding = _write_model(section, config, contents, stored, part)
        if not difference <= TOLERANCE:  # NaN is a failure
            raise MergeError(
                f"The merged model differs from base + adapter by {difference:.2e} "
                f"in its logits (allowed: {TOLERANCE:.0e}). Nothing was written.",
                "This is a defect of dcft or of the model's code: please report it.",
            )
        save_tokenizer(tokenizer, contents, part)
        for file in part.iterdir():  # safetensors lets only the owner read its files
            file.chmod((part / "config.json").stat().st_mode)
    return MergeResult(
        folder=folder,
        base=section.name,
        difference=difference,
        dtype=str(stored).removeprefix("torch."),
        rounding=rounding,
        model_class=model_class,
        layers=len(contents.modules),
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
    )


def _write_model(
    section: ModelSection,
    config: PreTrainedConfig,
    contents: Contents,
    dtype: torch.dtype,
    folder: Path,
) -> tuple[float, float | None]:
    """Write weights and configuration; return `MergeResult`'s difference and rounding."""
    model_class = str(contents.model["class"])
    model = load_model(section, config, model_class).model
    method = load_method(model, contents)
    model.train(False)
    inputs = probes(model)
    adapted = logits(model, inputs)
    layout = None
    if contents.method == "dcft":  # others change weights that are compared with the base's
        layout = find_layout(model, checkpoint_files(section), trained=contents.not_in_base)
    method.merge()
    merged = rounded = logits(model, inputs)
    rounding = None
    if dtype != torch.float32:
        _round_weights(model, dtype)
        rounded = logits(model, inputs)
        rounding = largest_difference(rounded, merged)
    nn.Module.to(model, dtype)  # integers stay
    if layout is None:
        model.save_pretrained(folder)
    else:
        write_shards(model, layout, folder)
        _write_config(model, folder, dtype)
    del model, method
    gc.collect()  # a model may hold itself; there is memory for one
    found = logits(load_merged(folder, model_class), inputs)
    return largest_difference([*merged, *found], [*adapted, *rounded]), rounding


def _write_config(model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> None:
    """Write what `save_pretrained` writes in addition to the weights."""
    model.config.dtype = str(dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


@torch.no_grad()
def _round_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Round parameters and saved buffers in place; tables that are computed on loading stay."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(dtype))


def _stored_type(config: PreTrainedConfig, dtype: DTypeChoice) -> torch.dtype:
    """Return the type to write weights in, given the base's configuration."""
    if dtype != "base":
        return getattr(torch, dtype)  # type: ignore[no-any-return]
    if isinstance(config.dtype, torch.dtype) and config.dtype.is_floating_point:
        return config.dtype
    return torch.float32


def trained_config(
    section: ModelSection, contents: Contents, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedConfig:
    """Load the base's configuration, with the labels that the adapter was trained for."""
    name = str(contents.model["class"])
    cls = getattr(transformers, name, None)
    base_class = transformers.PreTrainedModel  # itself, it is no model
    if not (isinstance(cls, type) and issubclass(cls, base_class) and cls is not base_class):
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
    agree_on_padding(section, config, tokenizer, name)
    return config


def base_section(base: str | None, contents: Contents) -> ModelSection:
    """Return the base model to load: the one given, else that of the adapter's run or file.

    Raises:
        AdapterFileError: none is given, and neither of them names one.
    """
    if base is None and (recipe := recipe_beside(contents.path)):
        model = load_recipe(str(recipe)).recipe.model  # has absolute paths, unlike the file
        return ModelSection(name=model.name, revision=model.revision)
    name = base or contents.base["name"]
    if name is None:
        raise AdapterFileError(
            f"{contents.path} does not name its base model: it was saved outside `dcft train`.",
            "Name it: dcft merge BASE ADAPTER OUT, or dcft export --base BASE.",
        )
    # A revision belongs to the model that the adapter names.
    revision = contents.base["revision"] if name == contents.base["name"] else None
    return ModelSection(name=name, revision=revision)
