"""What processes exchange and share, as far as one process shows it."""

import pytest
import torch
import transformers
from torch import nn

from dcft_cli.errors import ModelError
from dcft_cli.training.distributed import (
    has_unreached,
    reshard,
    shard_frozen,
)
from tests.families import tiny_model, tokens


def test_parameters_that_no_loss_reaches() -> None:
    """Such as XLNet's embedding of masked words, which only its pretraining reads."""
    inputs = tokens() | {"labels": torch.tensor([0, 1, 0])}
    assert not has_unreached(tiny_model(), inputs)
    config = transformers.XLNetConfig(d_model=16, n_layer=1, n_head=2, d_inner=20, vocab_size=128)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    assert has_unreached(model, inputs)
    model.requires_grad_(False)
    model.logits_proj.requires_grad_(True)
    assert not has_unreached(model, inputs)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_without_a_head_cannot_be_split() -> None:
    with pytest.raises(ModelError, match="BertModel has no encoder apart from its head"):
        shard_frozen(tiny_model().base_model, [], torch.device("cpu"), 2)


def test_resharding_calls_what_fsdp_has_added() -> None:
    calls = []
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].reshard = lambda: calls.append(1)
    reshard(model)
    assert calls == [1]
