"""Adapters for bases that tests save."""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from dcft_cli import DCFTConfig, inject, save_adapter

AUTO = AutoModelForSequenceClassification


def adapter_for(base: Path) -> Path:
    """Save an adapter of all layers, and a head of three classes, that change the logits."""
    torch.manual_seed(1)
    model, report = AUTO.from_pretrained(
        base, num_labels=3, dtype=torch.float32, output_loading_info=True
    )
    inject(model, DCFTConfig(kernel_size=3, stride=2, rank=2), head=report["missing_keys"])
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    return save_adapter(model, base.with_name(f"{base.name}.safetensors"))
