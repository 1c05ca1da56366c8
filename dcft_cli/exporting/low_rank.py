"""An adapter as LoRA matrices: dW = B' A' (docs/method.md), of the whole weight."""

import torch
from torch import Tensor

from dcft_cli.adapter.layer import AdaptedWeight

_NEGLIGIBLE = 1e-7  # of the largest singular value: below the rounding of float32


@torch.no_grad()
def lora_matrices(weight: AdaptedWeight) -> tuple[Tensor, Tensor]:
    """Return lora_A (r, in) and lora_B (out, r) with lora_B lora_A = dW, in float64.

    They are A' and B', with the scale in B'; those of several blocks of rows are stacked, so their
    ranks add. Where the rank of dW is smaller (a kernel with zero columns, or of lower rank), r is
    that rank, at least 1.
    """
    pairs = [adapter.double()() for adapter in weight.dcft_adapters()]
    down = torch.cat([pair[0] for pair in pairs])
    up = torch.cat([pair[1] for pair in pairs], dim=1)
    # The singular values of B' A' are those of a small product of triangular factors.
    (q_up, r_up), (q_down, r_down) = torch.linalg.qr(up), torch.linalg.qr(down.mT)
    left, values, right = torch.linalg.svd(r_up @ r_down.mT, full_matrices=False)
    rank = max(int((values > _NEGLIGIBLE * values[0]).sum()), 1)
    if rank == len(down):
        return down, up
    root = values[:rank].sqrt()
    return root[:, None] * (q_down @ right.mT[:, :rank]).mT, (q_up @ left[:, :rank]) * root
