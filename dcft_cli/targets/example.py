"""Token ids that a transformers model can read, for a forward pass without data."""

from typing import Any

import torch
from torch import Tensor, nn


def example_of(model: nn.Module, rows: int = 2, length: int = 8) -> dict[str, Tensor] | None:
    """Random token ids, padded on the right, the same at each call; None for a model of others.

    Args:
        model: a transformers model; its configuration says which ids have a meaning of their own.
        rows, length: of the ids; the rows are of all lengths, from 2 on.
    """
    config: Any = getattr(model, "config", None)
    if getattr(model, "main_input_name", None) != "input_ids" or config is None:
        return None
    config = config.get_text_config()
    special = {
        token
        for name, token in config.to_dict().items()
        if name.endswith(("_token_id", "_token_index")) and isinstance(token, int)
    }
    size = getattr(config, "vocab_size", 128)  # Canine, which reads characters, has none
    ordinary = torch.tensor([number for number in range(size) if number not in special])
    generator = torch.Generator().manual_seed(0)
    ids = ordinary[torch.randint(len(ordinary), (rows, length), generator=generator)]
    lengths = torch.linspace(2, length, rows).long()
    places = torch.arange(length)
    mask = (places < lengths[:, None]).long()
    pad = getattr(config, "pad_token_id", None)
    ids = ids.masked_fill(mask == 0, pad if isinstance(pad, int) and pad >= 0 else 0)
    end = getattr(config, "eos_token_id", None)
    if isinstance(end, int):  # where BART and its kin look for the meaning
        ids = ids.masked_fill(places == lengths[:, None] - 1, end)
    return {"input_ids": ids, "attention_mask": mask}
