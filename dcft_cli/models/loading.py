"""Base models: from a name to what transformers loads."""

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from dcft_cli.adapter_file.fingerprint import fingerprint
from dcft_cli.addresses import SCHEME, local_path
from dcft_cli.errors import ModelError
from dcft_cli.models.quantization import make_trainable, quantization_settings
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
    source = source_of(section.name)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            source, revision=revision_of(section), **settings
        )
    except (OSError, ValueError, KeyError) as error:
        raise not_loaded("configuration", section, error) from error
    dropout = section.classifier_dropout
    if dropout is not None:
        for name in _HEAD_DROPOUT:
            if hasattr(config, name) or _UNSET_HEAD_DROPOUT.get(config.model_type) == name:
                setattr(config, name, dropout)
    return config


def skeleton(config: PreTrainedConfig, auto_class: str) -> nn.Module:
    """The model of a configuration on the meta device: shapes and names, no weights.

    Raises:
        ModelError: transformers has no such class for this type of model, or cannot build it.
    """
    auto = getattr(transformers, auto_class)
    if type(config) not in auto._model_mapping:
        raise _no_class(config, auto_class)
    with torch.device("meta"):
        try:
            model: nn.Module = auto.from_config(config)
        except ImportError as error:
            raise ModelError(
                f"Models of type {config.model_type} need a package that is not installed: "
                f"{' '.join(str(error).split())}",
                "Install it, or choose another base model.",
            ) from error
        except Exception as error:
            raise ModelError(
                f"The configuration (type {config.model_type}) makes no model: {error}",
                "Repair config.json, or choose another base model.",
            ) from error
    return model


def load_model(
    section: ModelSection,
    config: PreTrainedConfig,
    auto_class: str,
    tensors: Mapping[str, Tensor] | None = None,
) -> BaseModel:
    """The base model with its weights: the frozen ones as `section` says, the rest in float32.

    Args:
        tensors: of the checkpoint, by their names there; None reads them. Those that have the
            model's type already become its parameters as they are, without a copy.

    Raises:
        ModelError: the weights cannot be loaded, or not quantised.
    """
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"The weights of {section.name} are quantised in the checkpoint.",
            "Name the model in full precision; model.quantization=4bit quantises it for training.",
        )
    settings: dict[str, Any] = {}
    if section.quantization is not None:
        settings |= quantization_settings(section, skeleton(config, auto_class))
    try:
        model, report = getattr(transformers, auto_class).from_pretrained(
            source_of(section.name) if tensors is None else None,
            state_dict=tensors,
            revision=revision_of(section),
            config=config,
            dtype=getattr(torch, section.dtype),
            output_loading_info=True,
            # A head of another size (other labels) counts as lacking.
            ignore_mismatched_sizes=True,
            **settings,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise not_loaded("weights", section, error) from error
    if section.quantization is not None:
        make_trainable(model)
    parameters = dict(model.named_parameters())
    mismatched = {entry[0]: entry[1:] for entry in report["mismatched_keys"]}
    lacking = parameters.keys() & (report["missing_keys"] | mismatched.keys())
    _check_encoder(section, model, lacking, mismatched)
    for name in lacking:
        parameters[name].data = parameters[name].data.float()
    if section.classifier_dropout is not None:
        _set_head_dropout(model, config, section.classifier_dropout)
    return BaseModel(model, frozenset(lacking))


def base_fingerprint(
    model: PreTrainedModel, head: Collection[str], section: ModelSection, auto_class: str
) -> str:
    """Fingerprint of a base model's frozen weights; of a quantised one, those it was made from.

    Args:
        model: loaded as `section` says, with adapters or without.
        head: names of the parameters that are trained besides the adapters.
    """
    if section.quantization is not None:  # in bfloat16: that is what a fingerprint is taken of
        section = section.model_copy(update={"quantization": None, "dtype": "bfloat16"})
        config = copy(model.config)
        del config.quantization_config
        model = load_model(section, config, auto_class).model
    return fingerprint(model, exclude=head)


def head_outputs(outputs: Mapping[str, Any]) -> list[Tensor]:
    """What the head of a model says: its logits; for question answering those of start and end.

    Args:
        outputs: of the model; may hold states, caches and routing besides.
    """
    return [outputs[name] for name in ("logits", "start_logits", "end_logits") if name in outputs]


def _check_encoder(
    section: ModelSection,
    model: PreTrainedModel,
    lacking: Collection[str],
    mismatched: Mapping[str, Sequence[torch.Size]],
) -> None:
    """A checkpoint may lack the task head or a pooler, but no layer of the encoder."""
    suspect = {n for n in lacking if n in mismatched or any(p.isdigit() for p in n.split("."))}
    if not suspect:
        return
    prefix = getattr(model, "base_model_prefix", "")
    for encoder, _ in skeleton(model.config, "AutoModel").named_parameters():
        for name in suspect & {encoder, f"{prefix}.{encoder}"}:  # some heads have no prefix
            problem = f"{name} is missing"
            if name in mismatched:
                found, wanted = mismatched[name]
                problem = f"{name} is {tuple(found)}, and {tuple(wanted)} by the configuration"
            raise ModelError(
                f"The weights of {section.name} do not fit its configuration: {problem}.",
                "config.json and weights must come from the same model.",
            )


def _set_head_dropout(model: nn.Module, config: PreTrainedConfig, dropout: float) -> None:
    """For families whose configuration has no name for it (MPNet)."""
    if any(hasattr(config, name) for name in _HEAD_DROPOUT):
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and not _in_encoder(model, name):
            module.p = dropout


def _in_encoder(model: nn.Module, name: str) -> bool:
    return name.startswith(f"{getattr(model, 'base_model_prefix', '')}.")


def source_of(name: str) -> str:
    """What transformers takes for a model's name: a folder's path, or the name on the Hub."""
    path = local_path(name)
    return str(path) if name.startswith(SCHEME) or path.exists() else name


def revision_of(section: ModelSection) -> str:
    """Commit, tag or branch on the Hub."""
    return section.revision or "main"


def not_loaded(what: str, section: ModelSection, error: Exception) -> ModelError:
    """The error for a part of a base model that transformers cannot load."""
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
