"""Tiny models with a method of PEFT attached, and a training loop without a Trainer."""

from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from dcft_cli.methods.method import Method
from tests.families import tiny_model, tokens
from tests.methods.attached import attach

SEED = 3
STEPS = 6
SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 2, "dropout": 0.1},
    "lora_fa": {"rank": 2},
    "dora": {"rank": 2},
    "adalora": {"rank": 2, "initial_rank": 4, "orthogonality": 0.5},
    "lokr": {"factor": 4, "scale": 2.0},
    "psoft": {"rank": 4},
    "vera": {"rank": 8},
    "road": {},
}


def model_of(family: str) -> PreTrainedModel:
    """Return a tiny model whose outputs differ between inputs by more than rounding."""
    if family != "modernbert":
        return tiny_model(family, initializer_range=0.3)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 36, "num_attention_heads": 2}
    config = transformers.ModernBertConfig(
        **sizes,
        num_hidden_layers=2,
        vocab_size=128,
        pad_token_id=0,
        initializer_range=0.3,
        initializer_cutoff_factor=2.0,
    )
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


def attached(name: str, model: nn.Module, *, total_steps: int | None = None) -> Method:
    """Attach a method with its settings above to the targets of all roles."""
    return attach(name, model, seed=SEED, total_steps=total_steps, **SETTINGS[name])


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def train(
    method: Method,
    optimizer: torch.optim.Optimizer | None = None,
    first: int = 1,
    last: int = STEPS,
) -> list[float]:
    """Train from one step to another, both included; return the losses."""
    optimizer = optimizer or optimizer_of(method.model)
    method.model.train()
    losses = []
    for step in range(first, last + 1):
        torch.manual_seed(step)  # dropout
        loss = method.model(**batch(step)).loss
        if (term := method.penalty()) is not None:
            loss = loss + term
        loss.backward()
        optimizer.step()
        method.after_step(step)
        optimizer.zero_grad()
        losses.append(loss.item())
    method.model.eval()
    return losses


def batch(step: int) -> dict[str, torch.Tensor]:
    return {**tokens(step), "labels": torch.tensor([0, 1, step % 2])}
