"""What a run needs to go on exactly: optimizer, schedule, loss scale and random numbers.

Tensors are in safetensors, the rest in JSON: a checkpoint holds nothing that is unpickled.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

# Of all processes together, by the names of the parameters: any number of processes can load it.
_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


def optimizer_state(
    model: nn.Module, optimizer: Optimizer
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return an optimizer's tensors, as PARAMETER/NAME, and the settings of its groups.

    In a distributed run all processes call this, and the first one gets the result.
    """
    state: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=_FULL)
    tensors = {
        f"{parameter}/{name}": value
        for parameter, values in state.get("state", {}).items()
        for name, value in values.items()
    }
    return tensors, list(state.get("param_groups", []))


def load_optimizer(
    model: nn.Module,
    optimizer: Optimizer,
    tensors: Mapping[str, Tensor],
    groups: Sequence[Mapping[str, Any]],
) -> None:
    """Restore what `optimizer_state` returned."""
    state: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        parameter, _, part = name.rpartition("/")
        state.setdefault(parameter, {})[part] = value
    full: Any = {"state": state, "param_groups": [dict(group) for group in groups]}
    set_optimizer_state_dict(model, optimizer, full, options=_FULL)


def load_schedule(scheduler: LambdaLR, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Restore a schedule's step, and set the learning rates that it has there.

    The rates are computed: the schedule of a longer run has others than the checkpoint's.
    """
    bases = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    rates = [base * factor(state["last_epoch"]) for base, factor in bases]
    scheduler.load_state_dict({**state, "_last_lr": rates})
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


@dataclass(frozen=True)
class RandomState:
    """The states of a process's random number generators.

    Attributes:
        plain: of Python and numpy, as JSON values.
        generators: of torch, for the CPU and for each device that the process uses.
    """

    plain: dict[str, Any]
    generators: list[Tensor]

    @classmethod
    def now(cls, device: torch.device, devices: int) -> "RandomState":
        """Return the states of this process, which uses so many devices of one type."""
        numbers: Any = np.random.get_state(legacy=False)
        numbers["state"]["key"] = numbers["state"]["key"].tolist()
        return cls(
            {"python": random.getstate(), "numpy": numbers},
            [torch.get_rng_state(), *_device_states(device, devices)],
        )

    def restore(self, device: torch.device, devices: int) -> None:
        """Set the generators of this process; those of devices only if they are as many."""
        version, words, gauss = self.plain["python"]
        random.setstate((version, tuple(words), gauss))
        numbers = self.plain["numpy"]
        key = np.array(numbers["state"]["key"], dtype=np.uint32)
        np.random.set_state({**numbers, "state": {**numbers["state"], "key": key}})
        torch.set_rng_state(self.generators[0])
        if device.type != "cpu" and len(self.generators) == 1 + devices:
            module: Any = torch.get_device_module(device)
            if devices > 1:
                module.set_rng_state_all(self.generators[1:])
            else:
                module.set_rng_state(self.generators[1])


def _device_states(device: torch.device, devices: int) -> list[Tensor]:
    if device.type == "cpu":
        return []
    module: Any = torch.get_device_module(device)
    return list(module.get_rng_state_all()) if devices > 1 else [module.get_rng_state()]
