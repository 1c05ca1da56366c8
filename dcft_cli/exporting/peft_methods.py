"""A method of PEFT as PEFT itself writes it, with the trained head as `modules_to_save`."""

from collections.abc import Collection, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from dcft_cli.exporting.peft import as_loaded, difference_when_loaded, modules_to_save, task_type
from dcft_cli.merging.proof import logits
from dcft_cli.methods.peft import PSOFT
from dcft_cli.methods.peft_method import ADAPTER, PEFTMethod, quiet
from dcft_cli.recipe import ModelSection

_PREFIX = "base_model.model."  # of every name in a file of PEFT


def write_peft_method(
    method: PEFTMethod,
    section: ModelSection,
    head: Collection[str],
    inputs: Mapping[str, Tensor],
    folder: Path,
) -> float:
    """Write adapter_config.json and adapter_model.safetensors, and load them again.

    Args:
        method: attached to a model and loaded; its layers in the head are merged.
        section, head, inputs, folder: as for `exporting.peft.write_peft`.

    Returns:
        The largest logit difference to base + adapter, of the loaded model or of what
        `merge_and_unload` returns.
    """
    from peft.utils import SAFETENSORS_WEIGHTS_NAME

    model = method.model
    assert isinstance(model, PreTrainedModel)
    expected = logits(model, inputs)
    # A module to save is saved whole: no adapter can be on it.
    in_head = {m.path for m in method.layers.values() if m.parameter_name in head}
    method.fold_layers(in_head)
    config = peft_config(method)
    config.task_type, modules = _head_as_saved(config, head, model)
    config.modules_to_save = modules
    config.base_model_name_or_path, config.revision = section.name, section.revision
    config.inference_mode = True
    state = peft_state(method)
    for module in modules:
        for own, tensor in model.get_submodule(module).state_dict().items():
            state[f"{_PREFIX}{module}.{own}"] = tensor
    with quiet():
        config.save_pretrained(str(folder))
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(stored, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    settings = as_loaded(model)
    return difference_when_loaded(folder, section, type(model), settings, inputs, expected)


def peft_config(method: PEFTMethod) -> Any:
    """Return the `PeftConfig` by which PEFT computes the same; PSOFT becomes LoRA.

    PEFT recomputes PSOFT's singular vectors when it loads a file, and their signs differ between
    machines: the same file would give other outputs there, without a warning.
    """
    from peft import LoraConfig

    if isinstance(method, PSOFT):
        rank = method.settings.rank
        return LoraConfig(r=rank, lora_alpha=rank, target_modules=list(method.layers))
    config = copy(method.wrapper.peft_config[ADAPTER])
    config.target_modules = list(method.layers)  # PEFT has shortened the names
    return config


def peft_state(method: PEFTMethod) -> dict[str, Tensor]:
    """Return the tensors of PEFT's file for `peft_config`, without the head's.

    Names and shapes are those of `peft.get_peft_model_state_dict`.
    """
    from peft import get_peft_model_state_dict

    if isinstance(method, PSOFT):
        return _as_lora(method)
    state: dict[str, Tensor] = get_peft_model_state_dict(
        method.wrapper, save_embedding_layers=False
    )
    return state


def _head_as_saved(
    config: Any, head: Collection[str], model: PreTrainedModel
) -> tuple[str | None, list[str]]:
    """Return PEFT's name for the task, and the modules to save.

    `merge_and_unload` of methods other than LoRA's kin fails if one of these has modules in it,
    such as RoBERTa's `classifier`, which PEFT adds by itself for tasks that it knows. For them,
    the head is saved layer by layer, without a task.
    """
    from peft import LoraConfig

    if isinstance(config, LoraConfig):
        return task_type(model), modules_to_save(head, model)
    return None, sorted({name.rpartition(".")[0] for name in head})


@torch.no_grad()
def _as_lora(method: PSOFT) -> dict[str, Tensor]:
    """Return lora_A (r, in) and lora_B (out, r) of each layer, whose dW has at most rank r."""
    rank, state = method.settings.rank, {}
    for name in method.layers:
        weight = method.base_layer(name).weight.to("cpu", torch.float64)
        delta = method.merged_layer(name).weight - weight
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        root = values[:rank].sqrt()
        state[f"{_PREFIX}{name}.lora_A.weight"] = (root[:, None] * right[:rank]).float()
        state[f"{_PREFIX}{name}.lora_B.weight"] = (left[:, :rank] * root).float()
    return state
