"""The adapters of Houlsby et al. 2019: two bottlenecks a layer."""

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from dcft_cli.methods.bottleneck import Bottleneck, WithBottleneck
from dcft_cli.methods.method import Method
from dcft_cli.methods.places import block_outputs, output_of
from dcft_cli.targets.modules import replace_modules
from dcft_cli.targets.resolve import Target


class Houlsby(Method):
    """Change the output f of each attention and feed-forward block, before it is added to x.

    a(f) = f + W_up gelu(W_down f + b_down) + b_up, then LayerNorm(a(f) + x) as in the base
    (arXiv 1902.00751, section 2 and figure 2). The paper also trains every LayerNorm; here they
    stay frozen, as in the counts of the comparisons that followed (arXiv 2303.10512, table 1).
    """

    can_merge: ClassVar[bool] = False

    def insert(self, model: nn.Module, targets: Sequence[Target]) -> None:
        """Put a bottleneck behind the output of every block.

        Raises:
            TargetError: the outputs of the blocks are not found.
        """
        size, gelu = self.settings.bottleneck, nn.functional.gelu
        new: dict[nn.Module, nn.Module] = {}
        for matrix in block_outputs("houlsby", model, targets, ("O", "FFN_OUT")):
            part = model.get_submodule(output_of(model, matrix.path))
            device = matrix.parameter.device
            bottleneck = Bottleneck(matrix.out_features, size, gelu, device=device)
            new[part] = WithBottleneck(part, bottleneck)
        replace_modules(model, new)
