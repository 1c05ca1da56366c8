"""Activations computed again in the backward pass rather than kept."""

from transformers import PreTrainedModel


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Has every layer of the encoder keep its input alone."""
    # transformers 5.17 knows it by its older name alone.
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
