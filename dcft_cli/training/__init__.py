"""The training loop: transformers' Trainer, taught about adapters."""
