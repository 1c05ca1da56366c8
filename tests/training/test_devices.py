"""On a device other than the CPU: every tensor is made there, and no value is read.

torch's meta device computes only shapes. It raises where a value is read, and takes other paths
than the CPU wherever the type of device decides.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dcft_cli import adapter_layers, orthogonality
from dcft_cli.acceleration import enable
from dcft_cli.training.checkpointing import checkpoint_activations
from tests.families import FAMILIES, tiny_model
from tests.small import adapt

SETTINGS = ["bfloat16", "checkpointing", "stride", "blocks"]
CASES = [(name, "float32") for name in FAMILIES]
CASES += [(name, setting) for name in ("bert", "deberta-v2") for setting in SETTINGS]


class Devices(TorchDispatchMode):
    """Records operations that read tensors of several devices; scalars may come from the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if len({one.device for one in read if one.ndim}) > 1:
            self.mixed.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize(("family", "setting"), CASES)
def test_a_step_stays_on_its_device(family: str, setting: str, accelerated: bool) -> None:
    model = tiny_model(family)
    model.config.problem_type = "single_label_classification"  # as tasks set it
    targets = ["Q", "V"] if setting == "blocks" else ["Q", "K", "V", "O", "FFN"]
    adapt(model, *targets, stride=1 if setting == "stride" else None)
    for parameter in model.parameters():
        if setting == "bfloat16" and not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    if setting == "checkpointing" and model.supports_gradient_checkpointing:
        checkpoint_activations(model)
    model.to("meta").train()
    if accelerated:
        enable(model)
    ids = torch.ones(3, 9, dtype=torch.long, device="meta")
    # transformers reads every mask but DeBERTa's, to see whether anything is padded.
    inputs = {"input_ids": ids}
    if family == "deberta-v2":
        inputs["attention_mask"] = torch.ones_like(ids)
    with Devices() as devices:
        outputs = model(**inputs, labels=ids[:, 0])
        layers = list(adapter_layers(model).values())
        (outputs.loss + orthogonality(layers)).backward()
        with torch.no_grad():
            model(**inputs)
    assert devices.mixed == set()
    trained = [parameter for layer in layers for parameter in layer.parameters()]
    assert all(one.grad is not None and one.grad.is_meta for one in trained)
