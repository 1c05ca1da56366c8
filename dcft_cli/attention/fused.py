"""DeBERTa's attention in Triton kernels on CUDA devices, by the package disentangled-flash.

Chosen of the two packages that have a backward pass. Its scores and all gradients, those of the
relative positions too, came out as transformers' in Triton's interpreter (float32 and float16), and
attention dropout is part of its kernels. flashdeberta 0.0.8, by its code, leaves dropout out and
waits for the device in every layer. Neither's speed has been measured.
"""

import copy
from importlib.util import find_spec
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

from dcft_cli.errors import ModelError, UserError

_HEAD_SIZES = (32, 64, 128)  # that the kernels are written for
_TOLERANCE = 0.05  # of a norm, in half precision: the kernels round at other places
_OTHERWISE = "Set model.attention=auto."


def check_fused(config: PreTrainedConfig, device: torch.device) -> None:
    """Whether `model.attention=fused` can be had for a model on a device; nothing is loaded.

    Raises:
        UserError: it cannot; says why.
    """
    relative = getattr(config, "relative_attention", False) and config.pos_att_type
    if config.model_type != "deberta-v2" or not relative:
        raise UserError(
            "model.attention=fused is for DeBERTa v2 and v3, and the base model is of type "
            f"{config.model_type}.",
            _OTHERWISE,
        )
    size = getattr(config, "attention_head_size", config.hidden_size // config.num_attention_heads)
    if size not in _HEAD_SIZES:
        raise UserError(
            f"model.attention=fused has no kernel for heads of {size} values "
            f"(it has for {', '.join(map(str, _HEAD_SIZES))}).",
            _OTHERWISE,
        )
    if device.type != "cuda":
        raise UserError(
            f"model.attention=fused needs a CUDA device, and this run is on {device.type}.",
            _OTHERWISE,
        )
    _check_package("disentangled_flash")
    _check_package("triton")


def fuse_attention(model: PreTrainedModel) -> None:
    """Puts fused attention in the place of transformers' own, around the same layers.

    In place; names of parameters and what is saved stay as they are. Hooks of the modules that are
    replaced are not taken over. Away from CUDA it computes by the package's PyTorch form.

    Raises:
        UserError: the package is not installed.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if type(module) is DisentangledSelfAttention and module.relative_attention
    }
    if not found:
        return
    _check_package("disentangled_flash")
    from dcft_cli.attention.kernels import FusedAttention  # an extra's

    distances = None  # one for all layers
    for name, module in found.items():
        with torch.device("meta"):  # its layers are to be the model's
            fused = FusedAttention(model.config, position_plan_cache=distances)
        distances = fused.position_plan_cache
        for part, layer in module.named_children():
            setattr(fused, part, layer)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, fused.train(module.training))


def _check_package(name: str) -> None:
    if find_spec(name) is None:
        raise UserError(
            f"model.attention=fused needs the package {name.replace('_', '-')}.",
            f'Install it: pip install "dcft-cli[deberta]". {_OTHERWISE}',
        )


def confirm_fused(model: PreTrainedModel, device: torch.device, precision: torch.dtype) -> None:
    """Compares a fused layer with transformers' on the device itself, gradients included.

    Args:
        precision: type of the computation, under autocast if it is not float32.

    Raises:
        ModelError: it does not run, or they differ by more than rounding.
    """
    encoder: Any = model.base_model.encoder
    fused = encoder.layer[0].attention.self
    training = fused.training
    plain = copy.copy(fused.eval())  # around the same layers
    plain.__class__ = DisentangledSelfAttention
    generator = torch.Generator().manual_seed(0)
    size = model.config.hidden_size
    states = torch.randn(2, 40, size, generator=generator).to(device).requires_grad_(True)
    mask = torch.ones(2, 40, device=device)
    mask[1, 30:] = 0
    pairs = encoder.get_attention_mask(mask)
    positions = encoder.get_rel_pos(states)
    table = encoder.get_rel_embedding().detach().requires_grad_(True)
    results = []
    for layer in (fused, plain):
        try:
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                context, _ = layer(states, pairs, relative_pos=positions, rel_embeddings=table)
            context = context.float() * mask[..., None]
            gradients = torch.autograd.grad(context.square().sum(), (states, table))
        except Exception as error:  # of a compiler, of a driver, ...
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"Fused attention does not run on this device: {reason}", _OTHERWISE
            ) from error
        results.append((context.detach(), *gradients))
    fused.train(training)
    for what, own, expected in zip(
        ("output", "gradient", "gradient of the positions"), *results, strict=True
    ):
        difference = float((own - expected).norm() / expected.norm())
        if not difference < _TOLERANCE:
            raise ModelError(
                f"Fused attention gives another {what} on this device than transformers does: "
                f"a difference of {difference:.1%}.",
                _OTHERWISE,
            )
