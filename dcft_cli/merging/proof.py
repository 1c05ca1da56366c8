"""Compare logits: the proof that a merged model answers as base + adapter does."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from dcft_cli.errors import MergeError
from dcft_cli.models.loading import head_outputs
from dcft_cli.targets.example import example_of

TOLERANCE = 1e-4  # of `largest_difference`, in float32
_ROWS, _LENGTH = 8, 32  # of the probes


def probes(model: PreTrainedModel, rows: int = _ROWS, length: int = _LENGTH) -> dict[str, Tensor]:
    """Return random token ids of several lengths, padded on the right.

    Args:
        rows, length: of the ids, which are shorter if the model has fewer positions.

    Raises:
        MergeError: the model does not read token ids.
    """
    positions = getattr(model.config, "max_position_embeddings", None) or 0  # XLNet's are -1
    inputs = example_of(model, rows, min(length, positions - 2) if positions > 2 else length)
    if inputs is None:
        raise MergeError(
            f"A {type(model).__name__} does not read token ids: its merge cannot be verified.",
            "Merge it in Python: load_adapter(model, path), then merge(model).",
        )
    return inputs


@torch.no_grad()
def logits(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Compute the outputs of a model's task head."""
    return head_outputs(model(**inputs))


def largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference of logits; NaN if any value of either is NaN.

    Where an output exceeds 1, in units of its largest value: the logits of a regression are as
    large as its labels, and so are the rounding errors of float32.
    """
    pairs = zip(found, expected, strict=True)
    shares = [(a - b).abs().max() / b.abs().max().clamp(min=1) for a, b in pairs]
    return torch.stack(shares).max().item()


def load_merged(folder: Path, model_class: str) -> PreTrainedModel:
    """Load a merged folder as any program would, in float32.

    Raises:
        MergeError: a tensor is missing, left over, or of another shape.
    """
    model, report = getattr(transformers, model_class).from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    if problems := {kind: sorted(map(str, names)) for kind, names in report.items() if names}:
        raise MergeError(
            f"transformers does not load the merged weights as they were written: {problems}. "
            "Nothing was kept.",
            "This is a defect of dcft or of the model's code: please report it.",
        )
    model.train(False)
    return model  # type: ignore[no-any-return]
