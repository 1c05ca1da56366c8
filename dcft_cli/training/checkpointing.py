"""Gradient checkpointing: activations recomputed in the backward pass."""

from transformers import PreTrainedModel


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Keep only the input of each encoder layer, and recompute the rest in the backward pass."""
    # transformers 5.17 has only the older name.
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
