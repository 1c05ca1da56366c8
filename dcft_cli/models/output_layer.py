"""A model's last layer in float32, in mixed precision too."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcft_cli.targets.head import head_layers, outside_encoder
from dcft_cli.targets.modules import replace_modules


class OutputLayer(nn.Linear):
    """A linear layer that computes in float32 under autocast, too.

    bfloat16 has 8 significant bits: outputs near 2000, say years, would be multiples of 8, and
    those of many rows would be equal.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return self.compute(x, self.weight, self.bias)

    @staticmethod
    def compute(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute x W^T + bias, as the layer does with its own."""
        device = x.device.type
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return F.linear(x, weight, bias)
        with torch.autocast(device, enabled=False):
            return F.linear(x.float(), weight.float(), None if bias is None else bias.float())


def compute_outputs_in_float32(model: nn.Module) -> None:
    """Replace the last linear layer outside the encoder, in place; its parameters stay."""
    layers = list(head_layers(model, outside_encoder(model)).values())
    if not layers or type(layers[-1]) is not nn.Linear:
        return
    last = layers[-1]
    output = OutputLayer(
        last.in_features, last.out_features, bias=last.bias is not None, device="meta"
    )
    output.weight, output.bias = last.weight, last.bias
    replace_modules(model, {last: output.train(last.training)})
