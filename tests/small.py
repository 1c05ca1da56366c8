"""What tests of the method share: dW as the paper writes it, and small layers of every kind."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcft_cli import DCFTConfig, adapter_layers
from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.inject import insert
from dcft_cli.targets.resolve import find_targets


def by_definition(
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    stride: int,
    scale: float,
    out_features: int,
    in_features: int,
) -> Tensor:
    """Eq. 5 and 6 as they are written: a transposed convolution of B A, cropped."""
    full = F.conv_transpose2d((B @ A)[None, None], C[None, None], stride=stride)[0, 0]
    return scale * full[:out_features, :in_features]


def delta_of(adapter: DCFTAdapter) -> Tensor:
    """dW (..., rows, in) of an adapter in float64, one matrix of a stack after another."""
    factors = [factor.detach().double() for factor in (adapter.A, adapter.B, adapter.C)]
    if adapter.A.ndim == 2:
        return by_definition(*factors, **adapter.shape_and_scale)
    stack = [by_definition(*f, **adapter.shape_and_scale) for f in zip(*factors, strict=True)]
    return torch.stack(stack)


def adapt(model: nn.Module, *targets: str, **settings: object) -> nn.Module:
    """Insert adapters at the targets, away from their start; unreached layers keep theirs."""
    config = DCFTConfig(**{"kernel_size": 3, "targets": targets, **settings})
    insert(model, find_targets(model, targets), config, head=())
    return perturb(model)


def perturb(model: nn.Module) -> nn.Module:
    """Draw every factor of every adapter from a distribution wide enough to matter."""
    generator = torch.Generator().manual_seed(1)
    for adapter in adapter_layers(model).values():
        for factor in (adapter.A, adapter.B, adapter.C):
            nn.init.normal_(factor, std=0.5, generator=generator)
    return model


def linear(out_features: int, in_features: int, seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(in_features, out_features)


class SmallExperts(nn.Module):
    """Three matrices (10, 6) in one parameter, all of them applied."""

    is_transposed = False

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.up_proj = nn.Parameter(torch.randn(3, 10, 6, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...i,eoi->...o", x, self.up_proj)


class TransposedExperts(SmallExperts):
    """The same, stored (6, 10) each."""

    is_transposed = True

    def __init__(self) -> None:
        super().__init__()
        self.up_proj = nn.Parameter(self.up_proj.detach().mT.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...i,eio->...o", x, self.up_proj)


class Packed(nn.Linear):
    """A linear layer as quantizers store it: numbers of one byte in a flat weight, and a scale."""

    def __init__(self, plain: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__(plain.in_features, plain.out_features)
        self.scale = float(plain.weight.detach().abs().max()) / 100
        steps = (plain.weight.detach() / self.scale).round()
        self.weight = nn.Parameter(steps.reshape(-1, 1).to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        unpacked = self.weight.to(x.dtype).view(self.out_features, self.in_features)
        return F.linear(x, unpacked * self.scale, self.bias)


class Fused(nn.Module):
    """One head of attention with its projections in one weight; V may go unused."""

    def __init__(self, width: int = 6, *, values: bool = True) -> None:
        super().__init__()
        self.qkv = linear(3 * width, width, seed=1)
        self.proj = linear(width, width, seed=2)
        self.values = values

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        weights = (query @ key.mT).softmax(-1)
        return self.proj(weights @ (value if self.values else x))
