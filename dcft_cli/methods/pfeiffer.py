"""The adapters of Pfeiffer et al. 2021: one bottleneck a layer."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from dcft_cli.methods.bottleneck import Bottleneck, WithBottleneck
from dcft_cli.methods.method import Method
from dcft_cli.methods.places import block_outputs, sum_of
from dcft_cli.targets.modules import replace_modules
from dcft_cli.targets.resolve import Target


class Pfeiffer(Method):
    """Change the output f of each feed-forward block, as its LayerNorm sees it.

    The placement that AdapterFusion (arXiv 2005.00247) found best and MAD-X (arXiv 2005.00052)
    uses, as `SeqBnConfig` of the authors' library "adapters" defines it. With x the block's input
    and LN the layer's frozen LayerNorm:

        u = LN(f + x),   y = LN(f + W_up relu(W_down u + b_down) + b_up + x)

    A pre-LN layer has no such LN: there y = u + W_up relu(W_down u + b_down) + b_up, u = f + x.
    """

    can_merge: ClassVar[bool] = False

    def insert(self, model: nn.Module, targets: Sequence[Target]) -> None:
        """Put a bottleneck behind f + x of every feed-forward block.

        Raises:
            TargetError: these sums are not found.
        """
        size, relu = self.settings.bottleneck, nn.functional.relu
        new: dict[nn.Module, nn.Module] = {}
        for matrix in block_outputs("pfeiffer", model, targets, ("FFN_OUT",)):
            place = sum_of("pfeiffer", model, matrix.path)
            part = model.get_submodule(place.name)
            wrapper = TwiceNormed if place.normed else WithBottleneck
            device = matrix.parameter.device
            new[part] = wrapper(part, Bottleneck(matrix.out_features, size, relu, device=device))
        replace_modules(model, new)


class TwiceNormed(WithBottleneck):
    """A LayerNorm applied twice: LN(s + bottleneck(LN(s))), s = f + x."""

    def forward(self, s: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Normalize (..., features)."""
        normed: Tensor = self.base(s + self.bottleneck(self.base(s)))
        return normed
