"""A model that several processes train: what they exchange, and what they share."""

from collections.abc import Collection, Iterator, Mapping
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from dcft_cli.errors import ModelError
from dcft_cli.targets.gradients import Loss, loss_of, untouched_gradients


def exchange_trained_only(model: nn.Module) -> None:
    """Let DDP leave out all that is frozen, which is the same in every process.

    Otherwise it would send the whole base once, and all buffers at every step: those of NoLA and
    VeRA are large. Sharded weights (`shard_frozen`) cannot be sent at all.
    """
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    buffers = [name for name, _ in model.named_buffers()]
    # Private: DDP has no public way to leave something out.
    leave_out = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    leave_out(model, frozen + buffers)  # type: ignore[no-untyped-call]


def has_unreached(model: nn.Module, inputs: Mapping[str, Any], loss: Loss | None = None) -> bool:
    """Return whether the loss of a batch does not depend on some trained parameter at all.

    Args:
        loss: of outputs and inputs; None: the model's own.
    """
    with untouched_gradients(model):
        loss_of(model, inputs, loss).backward()  # type: ignore[no-untyped-call]
        return any(p.requires_grad and p.grad is None for p in model.parameters())


def shard_frozen(
    model: PreTrainedModel, kept: Collection[str], device: torch.device, processes: int
) -> None:
    """Split the weights of a model's encoder among all processes (FSDP2), and freeze them.

    Every layer collects its weights from all processes for its forward and its backward pass.

    Args:
        model: on the CPU.
        kept: names of the parameters that every process keeps whole, such as the head's.

    Raises:
        ModelError: the model has no encoder apart from its head, or torch is too old.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    encoder = model.base_model
    if encoder is model:
        raise ModelError(
            f"training.shard_base: {type(model).__name__} has no encoder apart from its head.",
            "Train without training.shard_base.",
        )
    if "ignored_params" not in signature(fully_shard).parameters:
        raise ModelError(
            f"training.shard_base needs a newer torch than {torch.__version__}.",
            "Upgrade torch, or train without training.shard_base.",
        )
    encoder.requires_grad_(False)
    mesh = init_device_mesh(device.type, (processes,))
    whole = {model.get_parameter(name) for name in kept}
    for module in (*_layers(encoder), encoder):
        fully_shard(module, mesh=mesh, ignored_params=whole)


def move_whole(model: nn.Module, device: torch.device) -> None:
    """Move the parameters and buffers that are not sharded; FSDP moves the shards."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.device != device:
                parameter.data = parameter.data.to(device)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))


def reshard(model: nn.Module) -> None:
    """Split again what passes without a backward pass have collected and not given back."""
    for module in model.modules():
        if callable(split := getattr(module, "reshard", None)):  # FSDPModule's
            split()


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of an encoder: the members of its outermost lists."""
    for child in module.children():
        if isinstance(child, nn.ModuleList) and not any(
            isinstance(member, nn.ModuleList) for member in child
        ):
            yield from child
        else:
            yield from _layers(child)
