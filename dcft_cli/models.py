"""Base models and tokenizers: from a name to what transformers loads."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from dcft_cli.addresses import SCHEME, local_path
from dcft_cli.errors import ModelError
from dcft_cli.recipe.schema import ModelSection

# What model families call the dropout before the task head.
_HEAD_DROPOUT = ("classifier_dropout", "cls_dropout", "seq_classif_dropout")
# Families that look for the name, and whose configuration has it only where it was set.
_UNSET_HEAD_DROPOUT = {"deberta": "cls_dropout", "deberta-v2": "cls_dropout"}


@dataclass(frozen=True)
class BaseModel:
    """A pretrained model of a task's class, and what its checkpoint lacks.

    Attributes:
        model: with its weights; the head's are fresh where the checkpoint has none.
        lacking: names of the parameters that the checkpoint lacks: trained besides the adapter.
    """

    model: PreTrainedModel
    lacking: frozenset[str]


def quiet_transformers() -> None:
    """Keeps transformers' progress bars and load reports off the terminal."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def load_config(section: ModelSection, settings: Mapping[str, Any]) -> PreTrainedConfig:
    """The base model's configuration with the task's settings put in.

    Args:
        section: which model; its classifier dropout is applied where the family names one.
        settings: labels and problem type, as the task gives them.

    Raises:
        ModelError: no such model, or no configuration in it.
    """
    source = _source(section.name)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            source, revision=_revision(section), **settings
        )
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded("configuration", section, error) from error
    dropout = section.classifier_dropout
    if dropout is not None:
        for name in _HEAD_DROPOUT:
            if hasattr(config, name) or _UNSET_HEAD_DROPOUT.get(config.model_type) == name:
                setattr(config, name, dropout)
    return config


def skeleton(config: PreTrainedConfig, auto_class: str) -> nn.Module:
    """The model of a configuration on the meta device: shapes and names, no weights.

    Raises:
        ModelError: transformers has no such class for this type of model.
    """
    with torch.device("meta"):
        try:
            model: nn.Module = getattr(transformers, auto_class).from_config(config)
        except ValueError as error:
            raise _no_class(config, auto_class) from error
    return model


def load_model(section: ModelSection, config: PreTrainedConfig, auto_class: str) -> BaseModel:
    """The base model with its weights, frozen weights in `section.dtype`, the rest in float32.

    Raises:
        ModelError: the weights cannot be loaded.
    """
    try:
        model, report = getattr(transformers, auto_class).from_pretrained(
            _source(section.name),
            revision=_revision(section),
            config=config,
            dtype=getattr(torch, section.dtype),
            output_loading_info=True,
            # A head of another size (other labels) counts as lacking.
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise _not_loaded("weights", section, error) from error
    parameters = dict(model.named_parameters())
    mismatched = {entry[0]: entry[1:] for entry in report["mismatched_keys"]}
    lacking = parameters.keys() & (report["missing_keys"] | mismatched.keys())
    _check_encoder(section, model, lacking, mismatched)
    for name in lacking:
        parameters[name].data = parameters[name].data.float()
    if section.classifier_dropout is not None:
        _set_head_dropout(model, config, section.classifier_dropout)
    return BaseModel(model, frozenset(lacking))


def _check_encoder(
    section: ModelSection,
    model: PreTrainedModel,
    lacking: Collection[str],
    mismatched: Mapping[str, Sequence[torch.Size]],
) -> None:
    """A checkpoint may lack the task head or a pooler, but no layer of the encoder."""
    for name in sorted(lacking):
        if not _in_encoder(model, name):
            continue
        if name in mismatched:
            found, wanted = mismatched[name]
            problem = f"{name} is {tuple(found)}, and {tuple(wanted)} by the configuration"
        elif any(part.isdigit() for part in name.split(".")):
            problem = f"{name} is missing"
        else:
            continue
        raise ModelError(
            f"The weights of {section.name} do not fit its configuration: {problem}.",
            "config.json and weights must come from the same model.",
        )


def load_tokenizer(section: ModelSection) -> PreTrainedTokenizerFast:
    """The base model's own (fast) tokenizer.

    Raises:
        ModelError: there is none, it is a slow one, or a package that it needs is missing.
    """
    source, revision = _source(section.name), _revision(section)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except Exception as error:  # the tokenizers library raises nothing more special
        raise _not_loaded("tokenizer", section, error) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(
            f"The tokenizer of {section.name} ({type(tokenizer).__name__}) is written in Python "
            "and keeps no character offsets.",
            "Use a model with a tokenizer.json.",
        )
    # Where there are no tokenizer files, transformers makes one that knows no word and no letter.
    ordinary = tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)
    if not any(letter.isalnum() for piece in ordinary for letter in piece):
        raise ModelError(
            f"There is no tokenizer in the base model {section.name}.",
            "Add one: AutoTokenizer.from_pretrained(NAME).save_pretrained(DIR).",
        )
    return tokenizer


def _set_head_dropout(model: nn.Module, config: PreTrainedConfig, dropout: float) -> None:
    """For families whose configuration has no name for it (MPNet)."""
    if any(hasattr(config, name) for name in _HEAD_DROPOUT):
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and not _in_encoder(model, name):
            module.p = dropout


def _in_encoder(model: nn.Module, name: str) -> bool:
    return name.startswith(f"{getattr(model, 'base_model_prefix', '')}.")


def _source(name: str) -> str:
    path = local_path(name)  # a folder, if it is there; else a name on the Hub
    return str(path) if name.startswith(SCHEME) or path.exists() else name


def _revision(section: ModelSection) -> str:
    return section.revision or "main"


def _not_loaded(what: str, section: ModelSection, error: Exception) -> ModelError:
    looks_local = Path(section.name).is_absolute() or section.name.startswith((".", SCHEME))
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelError(
        f"Cannot load the {what} of the base model {section.name}: {reason}",
        "model.name must be a folder that save_pretrained wrote (config, weights, tokenizer)."
        if looks_local
        else "model.name must be a model on the Hub that this machine reaches or has in its "
        "cache, or a local folder: model.name=DIR.",
    )


def _no_class(config: PreTrainedConfig, auto_class: str) -> ModelError:
    return ModelError(
        f"transformers {transformers.__version__} has no {auto_class} "
        f"for models of type {config.model_type}.",
        "Choose another base model for this task.",
    )
