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

_PACKS_ANEW = "support_avx512bf16_for_cpu"


def quantization_settings(section: ModelSection, skeleton: nn.Module) -> dict[str, Any]:
    """What `from_pretrained` is to be told so that the weights arrive quantised.

    Quantised are the linear layers that have a role, which hold nearly all of a model. A pooler
    or task head, which may be trained, is not.

    Args:
        section: which model, in how many bits (`quantization` is set).
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
    kept = [
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
            llm_int8_skip_modules=kept,
        )
    }


def make_trainable(model: nn.Module) -> None:
    """Lets gradients flow through quantised layers, whatever was computed with them before.

    Raises:
        ModelError: there are none.
    """
    if not any(is_packed(parameter) for parameter in model.parameters()):
        raise ModelError(
            f"No weight of a {type(model).__name__} can be quantised: it has no linear layers.",
            "Leave out model.quantization; model.dtype=bfloat16 halves the memory.",
        )
    # What transformers asks of a quantised model before it trains it: that there are adapters.
    model._hf_peft_config_loaded = True  # type: ignore[assignment]
    for module in model.modules():
        # On some processors a 4-bit layer packs its weight anew when it is first evaluated, for a
        # product that knows no gradient: training could not go on after an evaluation.
        if hasattr(module, _PACKS_ANEW):
            setattr(module, _PACKS_ANEW, False)
