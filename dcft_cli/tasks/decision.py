"""What turns a trained model's logits into predictions, chosen on validation rows."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """Settings that are chosen after training and kept with the adapter.

    Attributes:
        temperature: logits are divided by it before they become probabilities (Guo et al. 2017,
            arXiv 1706.04599).
        thresholds: probability from which a label is predicted, one for all labels or one by name;
            None: the recipe's.
    """

    temperature: float = 1.0
    thresholds: float | Mapping[str, float] | None = None
