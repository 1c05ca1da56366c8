"""Base models in 4 or 8 bits, through bitsandbytes."""

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from dcft_cli.errors import ModelError
from dcft_cli.recipe.schema import ModelSection
from dcft_cli.targets.resolve import find_roles
from dcft_cli.targets.weights import is_packed

_REPACKS = "support_avx512bf16_for_cpu"


def quantization_settings(section: ModelSection, skeleton: nn.Module) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that quantize a model's weights.

    Only linear layers that have a role are quantized, which is nearly all of a model, but no
    pooler or task head, since these may be trained.

    Args:
        section: names the model and the bits (`quantization` is set).
        skeleton: the model on the meta device.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"model.quantization={section.quantization} needs the package bitsandbytes.",
            'Install it: pip install "dcft-cli[quantization]".',
        )
    with_role = {id(m.module) for target in find_roles(skeleton) for m in target.matrices}
    skipped = [
        name
        for name, module in skeleton.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in with_role
    ]
    four = section.quantization == "4bit"
    return {
        "quantization_config": BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=four,
            load_in_8bit=not four,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, section.dtype),
            llm_int8_skip_modules=skipped,
        )
    }


def make_trainable(model: nn.Module) -> None:
    """Let gradients flow through a model's quantized layers, in place.

    Raises:
        ModelError: the model has no quantized layer.
    """
    if not any(is_packed(parameter) for parameter in model.parameters()):
        raise ModelError(
            f"No weight of {type(model).__name__} can be quantized: it has no linear layers.",
            "Remove model.quantization; model.dtype=bfloat16 halves the memory.",
        )
    # The Trainer refuses a quantized model unless this says that it has adapters.
    model._hf_peft_config_loaded = True  # type: ignore[assignment]
    for module in model.modules():
        # On some processors a 4-bit layer repacks its weight at the first evaluation, for a product
        # without a gradient: training could not continue after an evaluation.
        if hasattr(module, _REPACKS):
            setattr(module, _REPACKS, False)
