"""A small network whose layers take their inputs from activations, trained one way and another."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from dcft_cli import DCFTConfig, inject
from dcft_cli.adapter import layer
from dcft_cli.adapter.activations import Origin, origin
from tests.small import perturb


def network(
    activation: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float64
) -> nn.Module:
    """Width 8 to 12, activation, and back; then normalised, and once more to 12."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.last = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 12)
            self.activation, self.norm = activation, nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.norm(x + self.down(self.activation(self.up(x)))))
            return y

    torch.manual_seed(0)
    config = DCFTConfig(kernel_size=4, targets=["up", "down", "last"])
    return perturb(inject(Network(), config, head=())).to(dtype)


def inputs(dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, 8, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_()


def gradients(y: Tensor, model: nn.Module, x: Tensor) -> list[Tensor]:
    trained = [p for p in model.parameters() if p.requires_grad]
    return list(torch.autograd.grad(y.float().square().sum(), [*trained, x]))


@contextmanager
def kept() -> Iterator[None]:
    """Every layer keeps its input."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "origin", lambda x: None)
        yield


@contextmanager
def counted(found: list[Origin | None]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:

        def counting(x: Tensor) -> Origin | None:
            found.append(origin(x))
            return found[-1]

        patch.setattr(layer, "origin", counting)
        yield


def plain_gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    with kept():
        return gradients(model(x), model, x)


def assert_same(ours: list[Tensor], others: list[Tensor], **tolerances: float) -> None:
    for one, other in zip(ours, others, strict=True):
        torch.testing.assert_close(one, other, **tolerances)
