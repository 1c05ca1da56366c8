"""Base models: configurations, weightless skeletons, and models with their weights."""

import os
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from dcft_cli.adapter_file.fingerprint import fingerprint
from dcft_cli.adapter_file.read import ADAPTER_FILE
from dcft_cli.addresses import local_path
from dcft_cli.errors import ModelError
from dcft_cli.failures import is_out_of_memory
from dcft_cli.models.output_layer import compute_outputs_in_float32
from dcft_cli.models.quantization import make_trainable, quantization_settings
from dcft_cli.models.remote_code import is_allowed, refused, trusts_code
from dcft_cli.recipe.schema import ModelSection

# What task heads return; for question answering there are two.
HEAD_OUTPUTS = ("logits", "start_logits", "end_logits")
_MAX_SKELETONS = 4
_NAMES = (
    "model.name=DIR: a folder that save_pretrained wrote (config, weights, tokenizer), or the name "
    "of a model on the Hub that can be reached or is in the local cache."
)
# What transformers raises for missing, damaged and made-up checkpoints.
_NOT_LOADED = (
    *(OSError, ValueError, RuntimeError, SafetensorError),
    *(LookupError, TypeError, AttributeError, EOFError),
)
_skeletons: dict[str, nn.Module] = {}


@dataclass(frozen=True)
class BaseModel:
    """A pretrained model of a task's class.

    Attributes:
        missing_keys: parameters that the checkpoint lacks; they are trained with the adapter.
        reused_keys: parameters of the checkpoint's task head that are trained too.
    """

    model: PreTrainedModel
    missing_keys: frozenset[str]
    reused_keys: frozenset[str] = frozenset()

    @property
    def head(self) -> frozenset[str]:
        """Names of the parameters that are trained in addition to the adapters."""
        return self.missing_keys | self.reused_keys


def quiet_transformers() -> None:
    """Turn off transformers' progress bars and load reports."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def load_config(
    section: ModelSection, settings: Mapping[str, Any] | None = None
) -> PreTrainedConfig:
    """Load the base model's configuration and apply the task's settings (labels, problem type).

    Raises:
        ModelError: no such model, or no configuration in it.
    """
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            source_of(section.name),
            revision=revision_of(section),
            trust_remote_code=trusts_code(section),
        )
    except ModelError:
        raise
    except Exception as error:  # a configuration can be wrong in any way
        raise not_loaded("configuration", section, error) from error
    config.update(dict(settings or {}))
    return config


def skeleton(config: PreTrainedConfig, auto_class: str) -> nn.Module:
    """Return the model of a configuration on the meta device: shapes and names, no weights.

    The last ones are kept, since a run asks for the same skeleton several times: do not modify it.

    Raises:
        ModelError: transformers has no such class for this type of model, or cannot build it.
    """
    key = f"{auto_class} {config!r}"
    if key not in _skeletons:
        if len(_skeletons) >= _MAX_SKELETONS:
            _skeletons.clear()
        _skeletons[key] = _build_skeleton(config, auto_class)
    return _skeletons[key]


def _build_skeleton(config: PreTrainedConfig, auto_class: str) -> nn.Module:
    auto, model_type = getattr(transformers, auto_class), config.model_type
    own_code = is_allowed() and auto_class in (getattr(config, "auto_map", None) or {})
    if type(config) not in auto._model_mapping and not own_code:
        raise ModelError(
            f"transformers {transformers.__version__} has no {auto_class} for models of type "
            f"{model_type}.",
            "Choose another base model for this task.",
        )
    try:
        with torch.device("meta"):
            return auto.from_config(  # type: ignore[no-any-return]
                config, trust_remote_code=is_allowed()
            )
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"Models of type {model_type} need a package that is not installed: {reason}",
            "Install it, or choose another base model.",
        ) from error
    except Exception as error:
        raise ModelError(
            f"Could not build a model from the configuration (type {model_type}): {error}",
            "Repair config.json, or choose another base model.",
        ) from error


def load_model(section: ModelSection, config: PreTrainedConfig, auto_class: str) -> BaseModel:
    """Load the base model: frozen weights in the section's type, missing ones in float32.

    Its last layer computes in float32, in mixed precision too.

    Raises:
        ModelError: the weights cannot be loaded or quantized.
    """
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"The checkpoint of {section.name} is stored in quantized form.",
            "Use the model in full precision; model.quantization=4bit quantizes it for training.",
        )
    settings: dict[str, Any] = {}
    if section.quantization is not None:
        settings |= quantization_settings(section, skeleton(config, auto_class))
    try:
        model, report = getattr(transformers, auto_class).from_pretrained(
            source_of(section.name),
            revision=revision_of(section),
            config=config,
            dtype=getattr(torch, section.dtype),
            trust_remote_code=trusts_code(section),
            output_loading_info=True,
            # A head of another size (other labels) counts as missing.
            ignore_mismatched_sizes=True,
            **settings,
        )
    except UnpicklingError as error:  # its message advises to load the file all the same
        raise ModelError(
            f"The weights of the base model {section.name} are a pickle that is damaged, or that "
            "holds more than weights. Nothing in it was run.",
            "Use the model in safetensors format, or download it again.",
        ) from error
    except ModelError:
        raise
    except _NOT_LOADED as error:
        if is_out_of_memory(error):
            raise
        raise not_loaded("weights", section, error) from error
    if section.quantization is not None:
        make_trainable(model)
    parameters = dict(model.named_parameters())
    mismatched = {name: shapes for name, *shapes in report["mismatched_keys"]}
    missing = parameters.keys() & (report["missing_keys"] | mismatched.keys())
    _check_encoder(section, model, missing, mismatched)
    for name in missing:
        parameters[name].data = parameters[name].data.float()
    if section.classifier_dropout is not None:
        for dropout in head_dropouts(model):
            dropout.p = section.classifier_dropout
    compute_outputs_in_float32(model)
    return BaseModel(model, frozenset(missing))


def base_fingerprint(
    model: PreTrainedModel, exclude: Collection[str], section: ModelSection, auto_class: str
) -> str:
    """Return the fingerprint of a base model's frozen weights, before any quantization.

    Args:
        model: loaded from `section`, with adapters or without.
        exclude: names of the parameters whose values the adapter file decides.
    """
    if section.quantization is not None:  # fingerprints are taken of bfloat16 values
        section = section.model_copy(update={"quantization": None, "dtype": "bfloat16"})
        config = copy(model.config)
        del config.quantization_config
        model = load_model(section, config, auto_class).model
    return fingerprint(model, exclude=exclude)


def check_finite(section: ModelSection, model: nn.Module) -> None:
    """Check that no weight of a base model is NaN or infinite: training would seem to diverge.

    Raises:
        ModelError: there is one; names it.
    """

    def is_finite(parameter: Tensor) -> bool:
        # The sum makes no copy, and is finite only if every value is.
        return bool(parameter.sum().isfinite()) or bool(parameter.isfinite().all())

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        broken = [n for n, p in parameters.items() if p.is_floating_point() and not is_finite(p)]
    if broken:
        raise ModelError(
            f"{len(broken)} of {len(parameters)} weights of {section.name} contain NaN or infinity;"
            f" the first is {broken[0]}.",
            "The checkpoint is damaged: download or save it again, or choose another base model.",
        )


def head_outputs(outputs: Mapping[str, Any]) -> list[Tensor]:
    """Return the logits of a model's outputs; for question answering start and end logits."""
    return [outputs[name] for name in HEAD_OUTPUTS if name in outputs]


def head_dropouts(model: nn.Module) -> list[nn.Dropout]:
    """Return the dropout before the task head, which families name differently; most have one."""
    outside = (f"{getattr(model, 'base_model_prefix', '')}.", "pooler.")
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Dropout) and not name.startswith(outside)
    ]


def _check_encoder(
    section: ModelSection,
    model: PreTrainedModel,
    missing: Collection[str],
    mismatched: Mapping[str, Sequence[torch.Size]],
) -> None:
    """Raise ModelError if the checkpoint lacks a layer of the encoder (a pooler may be missing)."""
    suspect = {n for n in missing if n in mismatched or any(p.isdigit() for p in n.split("."))}
    if not suspect:
        return
    prefix = getattr(model, "base_model_prefix", "")
    for encoder, _ in skeleton(model.config, "AutoModel").named_parameters():
        for name in suspect & {encoder, f"{prefix}.{encoder}"}:  # some heads have no prefix
            problem = f"{name} is missing"
            if name in mismatched:
                stored, expected = map(tuple, mismatched[name])
                problem = f"{name} has shape {stored}, the configuration says {expected}"
            raise ModelError(
                f"The weights of {section.name} do not fit its configuration: {problem}.",
                "config.json and weights must come from the same model.",
            )


def source_of(name: str) -> str:
    """Return a model's folder, or its name on the Hub, as `from_pretrained` expects it.

    Raises:
        ModelError: no such folder, or an adapter in place of a model.
    """
    path = local_path(name)
    if not path.exists():
        # Names on the Hub have one "/" at most, and begin with a letter or a digit.
        if name.startswith((".", "~", "$")) or path.is_absolute() or len(path.parts) > 2:
            raise ModelError(f"There is no base model {name}: no folder {path.absolute()}.", _NAMES)
        return name
    for file, what in (("adapter_config.json", "a PEFT adapter"), (ADAPTER_FILE, "a DCFT adapter")):
        # transformers would load the base model that a PEFT adapter names, and the adapter.
        if (path / file).is_file():
            raise ModelError(
                f"{name} is {what} ({file}), not a base model.",
                "Name its base model, or a folder in which the two are merged.",
            )
    return str(path)


def revision_of(section: ModelSection) -> str:
    """Return the commit, tag or branch on the Hub."""
    return section.revision or "main"


def not_loaded(what: str, section: ModelSection, error: Exception) -> ModelError:
    """Return the error for a part of a base model that transformers cannot load."""
    if "trust_remote_code" in str(error):  # transformers has no class for this refusal
        return refused(section)
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    path = local_path(section.name)
    files = path.iterdir() if path.is_dir() else ()
    # safetensors says that such a file does not exist.
    if denied := next((file for file in files if not os.access(file, os.R_OK)), None):
        reason = f"Permission denied: {denied}"
    where = "" if path.exists() else f" (no folder {path.absolute()}, so it was sought on the Hub)"
    return ModelError(
        f"Cannot load the {what} of the base model {section.name}{where}: {reason}", _NAMES
    )
