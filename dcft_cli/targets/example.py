"""Token ids that a transformers model can read, for a forward pass without data."""

from typing import Any

import torch
from torch import Tensor, nn


def example_of(model: nn.Module, rows: int = 2, length: int = 8) -> dict[str, Tensor] | None:
    """Return random token ids, padded on the right and the same at each call.

    Args:
        model: a transformers model; its configuration names the special ids, which are left out.
        rows, length: of the ids; the rows have lengths from 2 to `length`.

    Returns:
        `input_ids` and `attention_mask`, (rows, length) each; None for a model that does not read
        token ids.
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
    special = {token for token in special if 0 <= token < size}  # trimmed models name ids beyond
    ordinary = torch.tensor([number for number in range(size) if number not in special])
    generator = torch.Generator().manual_seed(0)
    ids = ordinary[torch.randint(len(ordinary), (rows, length), generator=generator)]
    lengths = torch.linspace(2, length, rows).long()
    positions = torch.arange(length)
    mask = (positions < lengths[:, None]).long()
    pad = getattr(config, "pad_token_id", None)
    ids = ids.masked_fill(mask == 0, pad if pad in special else 0)
    end = getattr(config, "eos_token_id", None)
    if end in special:  # BART and similar models classify by the last one
        ids = ids.masked_fill(positions == lengths[:, None] - 1, end)
    return {"input_ids": ids, "attention_mask": mask}
