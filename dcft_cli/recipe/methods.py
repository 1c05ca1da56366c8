"""The fine-tuning methods that `adapter.method` can name: their settings and defaults.

What they compute is in `dcft_cli.methods`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

MethodName = Literal[
    "dcft", "full", "head", "bitfit", "houlsby", "pfeiffer",
    "lora", "lora_fa", "sora", "adalora", "dora", "nola",
    "lokr", "psoft", "vera", "road",
]  # fmt: skip

_ALL = frozenset({"method", "file_dtype"})
_PLACED = _ALL | {"targets"}
_LORA = _PLACED | {"rank", "scale", "dropout"}


@dataclass(frozen=True)
class MethodSettings:
    """What a recipe can set for a method.

    Attributes:
        keys: of the adapter section.
        defaults: of these keys, where they differ from the section's own.
        places: roles of the layers that it changes, if a recipe cannot choose them.
        learning_rate, head_learning_rate: where a recipe has neither of the two.
        trains_base: whether it trains weights of the encoder, which must be float32 for that.
        fits_sharded: whether it fits weights of the encoder that processes split.
    """

    keys: frozenset[str] = _PLACED
    defaults: Mapping[str, Any] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    learning_rate: float = 1e-3
    head_learning_rate: float | None = 5e-3
    trains_base: bool = False
    fits_sharded: bool = True

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates, by key of the training section."""
        rates = {"learning_rate": self.learning_rate}
        if self.head_learning_rate is not None:
            rates["head_learning_rate"] = self.head_learning_rate
        return rates


# Learning rates: those that learn on all sets measured (docs/findings.md), else the papers'.
METHODS: dict[str, MethodSettings] = {
    "dcft": MethodSettings(
        _PLACED
        | {"kernel_size", "stride", "rank", "scale", "init", "orthogonality", "orthogonality_form"},
        learning_rate=5e-3,
        head_learning_rate=None,
    ),
    "full": MethodSettings(_ALL, learning_rate=3e-5, trains_base=True, fits_sharded=False),
    "head": MethodSettings(_ALL, learning_rate=5e-3, head_learning_rate=None),
    "bitfit": MethodSettings(_ALL, trains_base=True, fits_sharded=False),
    "houlsby": MethodSettings(_ALL | {"bottleneck"}, {"bottleneck": 8}, places=("O", "FFN_OUT")),
    "pfeiffer": MethodSettings(_ALL | {"bottleneck"}, places=("FFN_OUT",)),
    "lora": MethodSettings(_LORA, {"rank": 8, "scale": 2.0}),
    "lora_fa": MethodSettings(_LORA, {"rank": 8, "scale": 2.0}),
    "dora": MethodSettings(_LORA, {"rank": 8, "scale": 2.0}, fits_sharded=False),
    "adalora": MethodSettings(
        _LORA
        | {"initial_rank", "orthogonality"}
        | {"pruning_start", "pruning_end", "pruning_interval"},
        {"rank": 8, "scale": 2.0, "orthogonality": 0.1},
    ),
    "sora": MethodSettings(_LORA | {"gate_penalty", "gate_threshold"}, {"rank": 8, "scale": 2.0}),
    "nola": MethodSettings(
        _PLACED | {"rank", "scale", "bases"}, {"rank": 8, "scale": 1.0}, learning_rate=1e-2
    ),
    "lokr": MethodSettings(
        _PLACED | {"rank", "scale", "factor"}, learning_rate=5e-3, head_learning_rate=None
    ),
    "psoft": MethodSettings(_PLACED | {"rank"}, {"rank": 32}, fits_sharded=False),
    "vera": MethodSettings(_PLACED | {"rank"}, {"rank": 256}, learning_rate=5e-3),
    "road": MethodSettings(_PLACED, learning_rate=5e-3),
}
assert METHODS.keys() == set(get_args(MethodName))


def with_method_defaults(values: Any) -> Any:
    """Return a recipe's sections with the settings of other sections that its method sets.

    These are the learning rates where the recipe has none, and `head.dense` where the method has
    no adapters for single layers.
    """
    if not isinstance(values, Mapping):
        return values
    adapter, head, training = (values.get(name) or {} for name in ("adapter", "head", "training"))
    if not all(isinstance(section, Mapping) for section in (adapter, head, training)):
        return values
    method = METHODS.get(str(adapter.get("method", "dcft")))
    if method is None:
        return values
    found = dict(values)
    if "targets" not in method.keys:
        found["head"] = {"dense": "full", **head}
    if "learning_rate" not in training:
        found["training"] = {**method.rates, **training}
    return found
