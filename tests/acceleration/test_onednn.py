"""Products by either library: their values, and which of them is chosen."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode

from dcft_cli import DCFTConfig, folded, inject
from dcft_cli.acceleration import onednn as dense
from tests.small import always, perturb

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
SIZES = st.integers(0, 40)


@pytest.fixture
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """oneDNN is held to be faster; shapes of what it computes."""
    always(True, monkeypatch)
    compute, shapes = dense._by_onednn, []

    def noting(x: Tensor, W: Tensor, bias: Tensor | None) -> Tensor:
        shapes.append((*x.shape, W.shape[0]))
        return compute(x, W, bias)

    monkeypatch.setattr(dense, "_by_onednn", noting)
    return shapes


@settings(deadline=None)
@given(rows=SIZES, into=SIZES, out=SIZES, seed=st.integers(0, 99))
def test_values(rows: int, into: int, out: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, W, bias = (torch.randn(*s, generator=generator) for s in ((rows, into), (out, into), (out,)))
    expected = (x.double() @ W.double().mT).float()
    with pytest.MonkeyPatch.context() as patch:
        for onednn in (True, False):
            always(onednn, patch)
            for given_bias in (None, bias):
                found = dense.linear(x, W, given_bias)
                torch.testing.assert_close(
                    found, expected + (0 if given_bias is None else bias), rtol=1e-4, atol=1e-4
                )


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


def test_every_layout(by_onednn: list[tuple[int, ...]]) -> None:
    for x in layouts(24, 40):
        for W in layouts(8, 40):
            torch.testing.assert_close(dense.linear(x, W), x @ W.mT, rtol=1e-4, atol=1e-4)
    assert by_onednn == [(24, 40, 8)] * 64


def test_every_layout_of_a_bias(by_onednn: list[tuple[int, ...]]) -> None:
    x, W = torch.randn(6, 5), torch.randn(4, 5)
    for bias in (torch.randn(8)[::2], torch.randn(1).expand(4), torch.randn(1, 4), torch.randn(1)):
        torch.testing.assert_close(dense.linear(x, W, bias), x @ W.mT + bias)
    assert by_onednn == [(6, 5, 4)] * 2


# torch's own forward mode is written in a language that torch warns of.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_what_has_no_rule_for_it_gets_torchs_product(by_onednn: list[tuple[int, ...]]) -> None:
    x, W = torch.randn(6, 5), torch.randn(4, 5)
    _, tangent = torch.func.jvp(lambda x: dense.linear(x, W), (x,), (x,))
    torch.testing.assert_close(tangent, x @ W.mT)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        found = torch.autograd.forward_ad.unpack_dual(dense.linear(dual, W)).tangent
    torch.testing.assert_close(found, x @ W.mT)
    torch.testing.assert_close(torch.vmap(lambda x: dense.linear(x, W))(x), x @ W.mT)
    assert by_onednn == []


def test_more_dimensions(by_onednn: list[tuple[int, ...]]) -> None:
    x, W, bias = torch.randn(2, 3, 4, 5), torch.randn(6, 5), torch.randn(6)
    found = dense.linear(x, W, bias)
    torch.testing.assert_close(found, torch.nn.functional.linear(x, W, bias))
    assert by_onednn == [(2, 3, 4, 5, 6)]


@pytest.mark.parametrize("onednn", [False, True])
def test_sums_of_products(onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    always(onednn, monkeypatch)
    G, W = [torch.randn(9, n) for n in (5, 7, 3)], [torch.randn(n, 11) for n in (5, 7, 3)]
    expected = torch.cat(G, 1) @ torch.cat(W, 0)
    torch.testing.assert_close(dense.sum_of_products(G, W), expected, rtol=1e-4, atol=1e-4)
    thin, rows = torch.randn(30, 2), torch.randn(30, 8)
    torch.testing.assert_close(dense.across_tokens(thin, rows), thin.mT @ rows)


def test_none_but_float32_on_a_cpu_goes_by_onednn(by_onednn: list[tuple[int, ...]]) -> None:
    W = torch.randn(4, 4)
    for dtype in (torch.float64, torch.bfloat16):
        assert dense.linear(W.to(dtype), W.to(dtype)).dtype == dtype
    assert dense.linear(W.to("meta"), W.to("meta")).device.type == "meta"
    with FakeTensorMode():
        fake = torch.randn(4, 4)
        assert dense.linear(fake, fake).shape == (4, 4)
    with torch.autocast("cpu"):
        assert dense.linear(W, W).dtype == torch.bfloat16
    torch._C._set_mkldnn_enabled(False)
    try:
        dense.linear(W, W)
    finally:
        torch._C._set_mkldnn_enabled(True)
    assert by_onednn == []
    dense.linear(W, W)
    assert by_onednn == [(4, 4, 4)]


def test_folded_layers_are_scored_by_it(by_onednn: list[tuple[int, ...]]) -> None:
    model = perturb(inject(torch.nn.Sequential(torch.nn.Linear(8, 12)), DCFTConfig(targets=["0"])))
    x = torch.randn(5, 8)
    expected = model(x)
    by_onednn.clear()
    with torch.no_grad(), folded(model):
        torch.testing.assert_close(model(x), expected.detach())
    assert by_onednn == [(5, 8, 12)]


def test_small_products_are_not_worth_a_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "_WORTH", 2**22)
    asked = []
    monkeypatch.setattr(dense, "_onednn_is_faster", lambda *, thin: asked.append(thin))
    small, large, thin = torch.ones(8, 8), torch.ones(256, 256), torch.ones(8192, 128)
    for x, W in ((small, small), (large, large), (thin, thin[:8]), (thin[:8], thin)):
        dense.linear(x, W)
    assert asked == [False, True, True]


@pytest.mark.parametrize("seconds, faster", [(1.0, True), (2.0, False), (1.9, False)])
def test_the_clearly_faster_is_chosen(
    seconds: float, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only products move: the other library's take 2 seconds."""
    now = 0.0

    def moving(by: float) -> object:
        def product(*tensors: object) -> None:
            nonlocal now
            now += by

        return product

    monkeypatch.setattr(dense, "_by_onednn", moving(seconds))
    monkeypatch.setattr(dense, "_blas", moving(2.0))
    monkeypatch.setattr(dense, "time", SimpleNamespace(perf_counter=lambda: now))
    assert dense._onednn_is_faster.__wrapped__(thin=False) is faster


@pytest.mark.parametrize("operation", [None, lambda *given: torch.ones(2) @ torch.ones(3)])
def test_without_onednn_nothing_changes(operation: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch has been built without it, or it refuses."""
    monkeypatch.setattr(dense, "_onednn", operation)
    for thin in (False, True):
        assert dense._onednn_is_faster.__wrapped__(thin=thin) is False
