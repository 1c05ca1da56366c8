"""How a model computes its attention, where there is a choice."""

from torch import nn

from dcft_cli.attention.disentangled import speed_up_attention

__all__ = ["set_attention"]


def set_attention(model: nn.Module, kind: str) -> None:
    """Has a loaded model compute its attention as a recipe's `model.attention` says.

    In place; parameters, their names and what is saved stay as they are.
    """
    if kind == "auto":
        speed_up_attention(model)
