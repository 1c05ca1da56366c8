"""How a model computes its attention, where there is a choice."""

from transformers import PreTrainedModel

from dcft_cli.acceleration.deberta_attention import speed_up_attention
from dcft_cli.attention.fused import check_fused, confirm_fused, fuse_attention

__all__ = ["check_fused", "confirm_fused", "set_attention"]


def set_attention(model: PreTrainedModel, kind: str = "auto") -> None:
    """Has a loaded model compute its attention as a recipe's `model.attention` says.

    In place; parameters, their names and what is saved stay as they are. With adapters or without.

    Args:
        kind: auto: DeBERTa v2 and v3 in fewer steps, to the same numbers but for rounding. fused:
            in Triton kernels, on CUDA (extra `deberta`). eager: as transformers has it, which alone
            has second derivatives, torch.func's transforms and torch.jit.trace. Other families are
            left alone.

    Raises:
        ValueError: no such kind.
        UserError: the kernels are not installed.
    """
    if kind not in ("auto", "eager", "fused"):
        raise ValueError(f"kind must be auto, eager or fused, not {kind!r}")
    for module in model.modules():
        if own := getattr(type(module), "replaces", None):
            module.__class__ = own
    if kind == "auto":
        speed_up_attention(model)
    elif kind == "fused":
        fuse_attention(model)
