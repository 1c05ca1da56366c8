"""Which kernel makes the smallest adapter. `tests/test_docs.py` has the published counts."""

import pytest

from dcft_cli import DCFTConfig
from dcft_cli.adapter_file.spec import Module


@pytest.mark.parametrize(("width", "smallest"), [(384, 8), (768, 10), (1024, 12), (1536, 13)])
def test_adapters_are_smallest_at_medium_kernels(width: int, smallest: int) -> None:
    sizes = [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]  # Q, K, V, O, FFN
    layers = [Module("layer", "", *size, "layer.weight") for size in sizes]
    counts = {
        d: sum(layer.parameters(DCFTConfig(kernel_size=d)) for layer in layers)
        for d in range(2, 33)
    }
    assert min(counts, key=counts.__getitem__) == smallest  # in docs/recipes.md
