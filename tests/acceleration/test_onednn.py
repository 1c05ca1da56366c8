"""Products by oneDNN: their values, whatever the layout, and when torch's own are taken."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dcft_cli.acceleration import onednn
from dcft_cli.acceleration.onednn import OneDNNLinear, linear

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN"
)
SIZES = st.integers(0, 40)


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "MIN_FLOPS", 1)


@settings(deadline=None)
@given(rows=SIZES, into=SIZES, out=SIZES, seed=st.integers(0, 99))
def test_values(rows: int, into: int, out: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, W, bias = (torch.randn(*s, generator=generator) for s in ((rows, into), (out, into), (out,)))
    expected = (x.double() @ W.double().mT).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onednn, "MIN_FLOPS", 1)
        torch.testing.assert_close(linear(x, W), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(linear(x, W, bias), expected + bias, rtol=1e-4, atol=1e-4)


def layouts(rows: int, columns: int) -> Iterator[Tensor]:
    """The same shape, differently stored."""
    yield torch.randn(rows, columns)
    yield torch.randn(columns, rows).mT
    yield torch.randn(rows, 2 * columns)[:, columns:]
    yield torch.randn(2 * rows, columns)[::2]
    yield torch.randn(rows, 3 * columns)[:, ::3]
    yield torch.randn(1, columns).expand(rows, columns)
    yield torch.randn(1).expand(rows, columns)
    yield torch.randn(5 * rows + columns).unfold(0, columns, 5)[:rows]


def test_every_layout() -> None:
    for x in layouts(24, 40):
        for W in layouts(8, 40):
            torch.testing.assert_close(linear(x, W), x @ W.mT, rtol=1e-4, atol=1e-4)


def test_more_dimensions() -> None:
    x, W, bias = torch.randn(2, 3, 4, 5), torch.randn(6, 5), torch.randn(6)
    torch.testing.assert_close(linear(x, W, bias), F.linear(x, W, bias))


def test_other_types_and_devices_go_to_torch() -> None:
    W = torch.randn(4, 4)
    for dtype in (torch.float64, torch.bfloat16):
        assert linear(W.to(dtype), W.to(dtype)).dtype == dtype
    assert linear(W.to("meta"), W.to("meta")).device.type == "meta"
    with torch.autocast("cpu"):
        assert linear(W, W).dtype == torch.bfloat16


def test_a_frozen_layer_has_the_gradient_of_its_input() -> None:
    plain = nn.Linear(6, 4).requires_grad_(False)
    fast = OneDNNLinear(6, 4).requires_grad_(False)
    fast.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 6, requires_grad=True)
    seed = torch.randn(2, 3, 4)
    torch.testing.assert_close(fast(x), plain(x))
    for ours, expected in zip(
        torch.autograd.grad(fast(x), x, seed), torch.autograd.grad(plain(x), x, seed), strict=True
    ):
        torch.testing.assert_close(ours, expected)
    fast(x).add_(1).sum().backward()  # outputs may be changed in place


def test_a_trained_layer_has_the_gradient_of_its_weight() -> None:
    layer = OneDNNLinear(6, 4)
    layer(torch.randn(3, 6)).sum().backward()
    assert layer.weight.grad is not None and layer.bias.grad is not None
