"""Published parameter counts (method table), on full-size models without weights."""

from functools import cache

import pytest
import torch
import transformers
from torch import nn

from dcft_cli.adapter.sizes import adapter_parameters, lora_parameters
from dcft_cli.targets.resolve import find_targets
from tests.families import published

ALL = ("Q", "K", "V", "O", "FFN")


@cache
def skeleton(name: str) -> nn.Module:
    with torch.device("meta"):
        return transformers.AutoModelForSequenceClassification.from_config(published(name))


@pytest.mark.parametrize(
    ("model", "d", "stride", "targets", "count"),
    [
        ("deberta-v3-base", 2, 2, ALL, 83_232),
        ("deberta-v3-base", 4, 4, ALL, 42_624),
        ("deberta-v3-base", 6, 6, ALL, 30_240),
        ("deberta-v3-base", 8, 8, ALL, 25_344),
        ("deberta-v3-base", 12, 12, ALL, 24_192),
        ("deberta-v3-base", 8, 4, ALL, 45_936),
        ("deberta-v3-base", 8, 2, ALL, 87_120),
        ("deberta-v3-base", 8, 1, ALL, 169_488),
        ("deberta-v3-base", 8, 8, ("Q", "K"), 6_144),
        ("deberta-v3-base", 8, 8, ("Q", "V"), 6_144),
        ("deberta-v3-base", 8, 8, ("Q", "K", "V"), 9_216),
        ("deberta-v3-base", 8, 8, ("Q", "K", "V", "O"), 12_288),
        ("deberta-v3-base", 8, 8, ("Q", "K", "V", "O", "FFN_OUT"), 18_816),
        ("roberta-large", 8, 8, ALL, 64_512),
        ("roberta-large", 2, 2, ALL, 221_760),
        ("deberta-v2-xxlarge", 8, 8, ALL, 184_320),
    ],
)
def test_counts(model: str, d: int, stride: int, targets: tuple[str, ...], count: int) -> None:
    found = find_targets(skeleton(model), targets)
    assert count == sum(
        adapter_parameters(t.out_features, t.in_features, kernel_size=d, stride=stride, rank=1)
        for t in found
    )


@pytest.mark.parametrize(("width", "smallest"), [(384, 8), (768, 10), (1024, 12), (1536, 13)])
def test_adapters_are_smallest_at_medium_kernels(width: int, smallest: int) -> None:
    layers = [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]  # Q, K, V, O, FFN
    counts = {
        d: sum(adapter_parameters(*layer, kernel_size=d, stride=d, rank=1) for layer in layers)
        for d in range(2, 33)
    }
    assert min(counts, key=counts.__getitem__) == smallest  # in docs/recipes.md


def test_lora_count() -> None:
    found = find_targets(skeleton("deberta-v3-base"), ALL)
    assert 165_888 == sum(lora_parameters(t.out_features, t.in_features) for t in found)
