"""Adapters of tiny models, and the outputs of each when it is loaded alone."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dcft_cli import DCFTConfig, inject, load_adapter, save_adapter
from dcft_cli.adapter.inject import head_parameters
from dcft_cli.models.loading import head_outputs
from dcft_cli.targets.head import outside_encoder
from tests.architectures.tiny import example, tiny_model

SEQUENCES = "AutoModelForSequenceClassification"
TOKENS = "AutoModelForTokenClassification"
QUESTIONS = "AutoModelForQuestionAnswering"

CONFIGS = {
    "small": DCFTConfig(kernel_size=4),
    "other.values": DCFTConfig(kernel_size=4, scale=2.0),
    "overlapping": DCFTConfig(kernel_size=3, stride=2, rank=2),
    "few layers": DCFTConfig(kernel_size=8, targets=["Q", "V"]),
}
LABELS = {"small": 2, "other.values": 5, "overlapping": 3, "few layers": 2}


def save_adapters(model_type: str, folder: Path, auto_class: str = SEQUENCES) -> dict[str, Path]:
    """Save an adapter of each configuration, far from its start, by name."""
    return {name: save(model_type, name, folder, auto_class) for name in CONFIGS}


def save(model_type: str, name: str, folder: Path, auto_class: str = SEQUENCES) -> Path:
    model = tiny_model(model_type, auto_class, num_labels=labels_of(name, auto_class))
    inputs = example(model_type, model.config)
    inject(model, CONFIGS[name], head=outside_encoder(model), inputs=inputs)
    generator = torch.Generator().manual_seed(list(CONFIGS).index(name))
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3, generator=generator)
    return save_adapter(model, folder / name / "adapter.safetensors")


def labels_of(name: str, auto_class: str) -> int:
    return 2 if auto_class == QUESTIONS else LABELS[name]


def outputs_alone(
    model_type: str, path: Path, inputs: dict[str, Tensor], auto_class: str = SEQUENCES
) -> list[Tensor]:
    """Return the outputs of a model with this one adapter, as `load_adapter` loads it."""
    labels = labels_of(path.parent.name, auto_class)
    model = load_adapter(tiny_model(model_type, auto_class, num_labels=labels), path)
    assert head_parameters(model)
    with torch.no_grad():
        return head_outputs(model.eval()(**inputs))
