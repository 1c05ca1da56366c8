"""What turns a trained model's logits into predictions, chosen on validation rows."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Decision:
    """What turns logits into predictions: the recipe's settings, or what training chose.

    Attributes:
        temperature: logits are divided by it before they become probabilities (Guo et al. 2017,
            arXiv 1706.04599).
        thresholds: probability from which a label is predicted, one for all labels or one by name;
            None for families that have none.
        null_threshold: lead from which "no answer" is predicted; None for families without it.
    """

    temperature: float = 1.0
    thresholds: float | Mapping[str, float] | None = None
    null_threshold: float | None = None

    def to_json(self, parts: Collection[str]) -> dict[str, Any]:
        """Return some of the settings, without those that are None."""
        values = asdict(self)
        return {part: values[part] for part in parts if values[part] is not None}


class Choosing(NamedTuple):
    """The setting of a recipe that asks to choose a part of a decision, and a value without."""

    setting: str
    without: str


CHOOSING = {
    "temperature": Choosing("task.calibrate", "false"),
    "thresholds": Choosing("task.threshold", "0.5"),
    "null_threshold": Choosing("task.null_threshold", "0"),
}
"""By part of a decision."""
