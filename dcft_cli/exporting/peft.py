"""An adapter as a LoRA adapter of PEFT: the same dW, and the trained head as `modules_to_save`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dcft_cli.adapter.inject import adapted_weights, remove_adapters
from dcft_cli.adapter.layer import AdaptedWeight, DCFTLinear
from dcft_cli.adapter.merge import merge_weight
from dcft_cli.errors import ExportError, listed
from dcft_cli.exporting.low_rank import lora_matrices
from dcft_cli.merging.proof import largest_difference, logits
from dcft_cli.methods.peft_method import quiet
from dcft_cli.models.loading import revision_of
from dcft_cli.recipe import ModelSection

_TASK_TYPES = {
    "SequenceClassification": "SEQ_CLS",
    "TokenClassification": "TOKEN_CLS",
    "QuestionAnswering": "QUESTION_ANS",
}

Matrices = dict[str, tuple[Tensor, Tensor]]


def write_peft(
    model: PreTrainedModel,
    section: ModelSection,
    head: Collection[str],
    inputs: Mapping[str, Tensor],
    folder: Path,
) -> tuple[float, tuple[int, int]]:
    """Write adapter_config.json and adapter_model.safetensors, and load them again.

    Args:
        model: base + adapter; left without its adapters.
        section: where any program finds the base.
        head: parameters that the base's checkpoint lacks, or whose values the adapter file has.
            They are written in full, with dW where they are adapted.
        inputs: of the passes that are compared.
        folder: of the files.

    Returns:
        The largest logit difference to base + adapter, of the loaded model or of what
        `merge_and_unload` returns; and the smallest and the largest rank.

    Raises:
        ExportError: LoRA cannot hold the adapter.
    """
    expected = logits(model, inputs)
    in_head = [w for w in adapted_weights(model) if w.matrix.parameter_name in head]
    for weight in in_head:
        merge_weight(weight)
    weights = [weight for weight in adapted_weights(model) if weight not in in_head]
    matrices = _lora_matrices(weights)
    transposed = any(weight.matrix.transposed for weight in weights)
    settings, model_class = as_loaded(model), type(model)
    remove_adapters(model)  # the head keeps what it has learned
    ranks = {name: len(down) for name, (down, _) in matrices.items()}
    with quiet():
        modules = modules_to_save(head, model)
        _write(model, matrices, modules, section, folder, transposed=transposed)
    difference = difference_when_loaded(folder, section, model_class, settings, inputs, expected)
    return difference, (min(ranks.values()), max(ranks.values()))


def difference_when_loaded(
    folder: Path,
    section: ModelSection,
    model_class: type[PreTrainedModel],
    settings: Mapping[str, Any],
    inputs: Mapping[str, Tensor],
    expected: Sequence[Tensor],
) -> float:
    """Load a PEFT folder as any program would; return its largest logit difference.

    Args:
        section, model_class, settings: where the base is, and how it is loaded (`as_loaded`).
        inputs, expected: of base + adapter. They are compared with the loaded model's, and with
            those of what `merge_and_unload` returns.
    """
    from peft import PeftModel

    with quiet():
        base = model_class.from_pretrained(section.name, revision=revision_of(section), **settings)
        loaded: Any = PeftModel.from_pretrained(base, str(folder))
        loaded.train(False)
        found = logits(loaded, inputs)
        merged = logits(loaded.merge_and_unload(), inputs)
    return largest_difference([*found, *merged], [*expected, *expected])


def _lora_matrices(weights: Iterable[AdaptedWeight]) -> Matrices:
    """Return lora_A and lora_B of each adapted layer, by its name.

    Raises:
        ExportError: a weight is not that of a linear layer, or several layers share it.
    """
    unfit = [
        weight.matrix.name
        for weight in weights
        if not isinstance(weight, DCFTLinear)
        or any(a.target and len(a.target.matrices) > 1 for a in weight.dcft_adapters())
    ]
    if unfit:
        raise ExportError(
            "PEFT's LoRA cannot hold the adapter of weights that belong to no linear layer "
            "(experts, convolutions) or to several: "
            f"{listed(unfit, limit=3)}. Nothing was written.",
            "Merge the adapter instead (dcft merge), or train without these layers "
            "(adapter.targets).",
        )
    return {weight.matrix.path: lora_matrices(weight) for weight in weights}


def modules_to_save(parameters: Iterable[str], model: PreTrainedModel) -> list[str]:
    """Return the modules to save for parameters that the base does not give.

    Outside the encoder they are saved whole, as PEFT does by itself with a `classifier`: a part
    that the base's checkpoint has is written too.
    """
    encoder = f"{model.base_model_prefix}."
    return sorted(
        {
            name.rpartition(".")[0] if name.startswith(encoder) else name.partition(".")[0]
            for name in parameters
        }
    )


def _write(
    model: PreTrainedModel,
    matrices: Matrices,
    modules: list[str],
    section: ModelSection,
    folder: Path,
    *,
    transposed: bool,
) -> None:
    """Write a LoRA adapter of a model whose head has its final values."""
    from peft import LoraConfig, get_peft_model

    rank = max(len(down) for down, _ in matrices.values())
    # The scale is in lora_B: PEFT's own, alpha / r, is 1 in every layer.
    others = {name: len(down) for name, (down, _) in matrices.items() if len(down) != rank}
    config = LoraConfig(
        task_type=task_type(model),
        r=rank,
        lora_alpha=rank,
        rank_pattern=others,
        alpha_pattern=dict(others),
        target_modules=list(matrices),
        modules_to_save=modules,
        fan_in_fan_out=transposed,
    )
    wrapped = get_peft_model(model, config)
    with torch.no_grad():
        for name, (down, up) in matrices.items():
            layer: Any = wrapped.get_base_model().get_submodule(name)
            layer.lora_A["default"].weight.copy_(down)
            layer.lora_B["default"].weight.copy_(up)
    config.modules_to_save = sorted(set(config.modules_to_save or ()))  # PEFT adds `classifier`
    config.base_model_name_or_path, config.revision = section.name, section.revision
    # "auto" would ask the Hub for the size of the vocabulary.
    wrapped.save_pretrained(str(folder), save_embedding_layers=False)


def task_type(model: PreTrainedModel) -> str | None:
    """Return PEFT's name for the task of a model's class; None if it has none."""
    return next((kind for n, kind in _TASK_TYPES.items() if n in type(model).__name__), None)


def as_loaded(model: PreTrainedModel) -> dict[str, Any]:
    """Return the arguments by which a script loads the base (readme.py has the same)."""
    settings = {name: getattr(model.config, name, None) for name in ("id2label", "pad_token_id")}
    settings = {name: value for name, value in settings.items() if value is not None}
    return {**settings, "dtype": torch.float32, "ignore_mismatched_sizes": True}
