"""Cheap dropout against torch's: what is dropped, how much, values and gradients."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dcft_cli.training import dropout
from dcft_cli.training.on_cpu import faster_on_cpu
from tests.jobs import recipe, train

SHAPE = (3, 2, 5, 7)  # texts, heads, queries, keys


def attention(*tensors: Tensor | None, **settings: object) -> Tensor:
    return F.scaled_dot_product_attention(*tensors, **settings)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, float]]:
    """What is kept of each tensor that has dropout, and the factor."""
    found, draw = [], dropout._kept

    def noting(*given: object) -> tuple[Tensor, float]:
        found.append(draw(*given))
        return found[-1]

    monkeypatch.setattr(dropout, "_kept", noting)
    return found


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_as_many_values_are_dropped_as_told(p: float) -> None:
    torch.manual_seed(0)
    n = 200_001
    x = torch.rand(n) + 1
    with faster_on_cpu():
        y = F.dropout(x, p)
    kept = y != 0
    deviation = math.sqrt(n * p * (1 - p))
    assert abs(int(kept.sum()) - n * (1 - p)) < 4 * deviation
    torch.testing.assert_close(y[kept], x[kept] / (1 - p), rtol=1e-3, atol=0)
    pairs = kept[:-1] & kept[1:]  # neighbours come from one random number
    assert abs(int(pairs.sum()) - n * (1 - p) ** 2) < 8 * deviation


def test_every_quarter_of_a_number_is_even() -> None:
    torch.manual_seed(0)
    kept, factor = dropout._kept((100_000, 4), 0.5)
    assert factor == 2
    assert all(abs(float(part) - 0.5) < 0.01 for part in kept.float().mean(0))


def test_gradients_of_dropout(drawn: list[tuple[Tensor, float]]) -> None:
    x = torch.randn(40, 50, requires_grad=True)
    with faster_on_cpu():
        y = nn.Dropout(0.3)(x)
    ((kept, factor),) = drawn
    torch.testing.assert_close(y, x * kept * factor)
    seed = torch.randn(50, 40).mT
    torch.testing.assert_close(torch.autograd.grad(y, x, seed)[0], seed * kept * factor)


def masks() -> dict[str, Tensor | None]:
    B, _, L, S = SHAPE
    torch.manual_seed(1)
    seen = torch.rand(B, 1, L, S) > 0.4
    blind = seen.clone()
    blind[1, 0, 2] = False
    return {
        "none": None,
        "truth": seen,
        "of keys": seen[:, :, :1],
        "of queries": torch.randn(B, 1, L, 1),
        "of heads": torch.randn(1, SHAPE[1], L, S),
        "the least numbers": torch.zeros(blind.shape).masked_fill(
            ~blind, torch.finfo(torch.float32).min
        ),
        "of one text": seen[:1],
        "two dimensions": seen[0, 0],
        "numbers": torch.randn(SHAPE),
        "blind": blind,
        "blind by numbers": torch.zeros(blind.shape).masked_fill(~blind, -math.inf),
    }


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    B, heads, L, S = SHAPE
    torch.manual_seed(2)
    q, k, v = torch.randn(B, L, heads, 4), torch.randn(B, S, heads, 4), torch.randn(B, S, heads, 6)
    return tuple(x.transpose(1, 2).requires_grad_() for x in (q, k, v))


def by_hand(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, kept: Tensor, factor: float, scale: float
) -> Tensor:
    scores = scale * q @ k.mT
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask
    probabilities = torch.softmax(scores, -1)
    probabilities = torch.where(scores.isneginf().all(-1, keepdim=True), 0, probabilities)
    return (probabilities * kept * factor) @ v


@pytest.mark.parametrize("at_a_time", [1, 2 * 70, 2**18], ids=["one text", "two", "all"])
@pytest.mark.parametrize("name", masks())
def test_attention(
    name: str,
    at_a_time: int,
    drawn: list[tuple[Tensor, float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dropout, "_AT_A_TIME", at_a_time)
    tensors, mask = inputs(), masks()[name]
    with faster_on_cpu():
        found = attention(*tensors, attn_mask=mask, dropout_p=0.3, scale=0.7)
    ((kept, factor),) = drawn
    expected = by_hand(*tensors, mask, kept, factor, 0.7)
    torch.testing.assert_close(found, expected)
    seed = torch.randn_like(found)
    ours = torch.autograd.grad(found, tensors, seed)
    if "blind" in name:  # by hand their gradients are not numbers
        assert all(bool(one.isfinite().all()) for one in ours)
        return
    for one, other in zip(ours, torch.autograd.grad(expected, tensors, seed), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", masks())
def test_attention_that_keeps_all_is_torchs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        dropout, "_kept", lambda shape, p: (torch.ones(shape, dtype=torch.uint8), 1.0)
    )
    tensors, mask = inputs(), masks()[name]
    expected = attention(*tensors, attn_mask=mask)
    with faster_on_cpu():
        found = attention(*tensors, attn_mask=mask, dropout_p=0.1)
    torch.testing.assert_close(found, expected)
    seed = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, tensors, seed),
        torch.autograd.grad(expected, tensors, seed),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_what_is_no_number_stays_none() -> None:
    q, k, v = (x.detach().clone() for x in inputs())
    q[0, 0, 0] = math.nan
    with faster_on_cpu():
        out = attention(q, k, v, attn_mask=masks()["truth"], dropout_p=0.1)
        assert out[0, 0, 0].isnan().all() and out.isnan().sum() == 6
        assert F.dropout(q, 0.1).isnan().sum() >= 1


Call = Callable[[], Tensor]
x, square = torch.ones(4, 4), torch.ones(2, 2, 4, 4)
TORCHS: dict[str, Call] = {
    "scoring": lambda: F.dropout(x, 0.5, training=False),
    "none dropped": lambda: F.dropout(x, 0.0),
    "all dropped": lambda: F.dropout(x, 1.0),
    "in place": lambda: F.dropout(x.clone(), 0.5, inplace=True),
    "float64": lambda: F.dropout(x.double(), 0.5),
    "half precision": lambda: F.dropout(x.bfloat16(), 0.5),
    "another device": lambda: F.dropout(x.to("meta"), 0.5),
    "attention without dropout": lambda: attention(square, square, square),
    "causal": lambda: attention(square, square, square, dropout_p=0.5, is_causal=True),
    "fewer keys' heads": lambda: attention(
        square, square[:, :1], square[:, :1], dropout_p=0.5, enable_gqa=True
    ),
    "trained mask": lambda: attention(
        square, square, square, torch.ones(4, 4, requires_grad=True), dropout_p=0.5
    ),
    "mask of one dimension": lambda: attention(
        square, square, square, torch.zeros(4), dropout_p=0.5
    ),
    "three dimensions": lambda: attention(square[0], square[0], square[0], dropout_p=0.5),
}


@pytest.mark.parametrize("name", TORCHS)
def test_all_else_is_torchs(name: str, drawn: list[tuple[Tensor, float]]) -> None:
    torch.manual_seed(3)
    expected = TORCHS[name]()
    torch.manual_seed(3)
    with faster_on_cpu():
        found = TORCHS[name]()
    assert drawn == []
    assert found.dtype == expected.dtype and found.device == expected.device
    if found.device.type == "cpu":
        torch.testing.assert_close(found, expected)


def test_what_comes_out_of_attention_may_be_changed(drawn: list[tuple[Tensor, float]]) -> None:
    tensors = inputs()
    with faster_on_cpu():
        out = attention(*tensors, dropout_p=0.3, scale=0.7)
        out += 1
    ((kept, factor),) = drawn
    expected = by_hand(*tensors, None, kept, factor, 0.7) + 1
    torch.testing.assert_close(out, expected)
    ours, theirs = (torch.autograd.grad(y.square().sum(), tensors) for y in (out, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_to_look_at() -> None:
    none = torch.ones(2, 2, 0, 4)
    with faster_on_cpu():
        assert not attention(square, none, none, dropout_p=0.5).any()


def test_derivatives_of_other_kinds_are_torchs(drawn: list[tuple[Tensor, float]]) -> None:
    with faster_on_cpu():
        gradient = torch.func.grad(lambda x: F.dropout(x, 0.5).sum())(torch.ones(100))
    assert set(gradient.tolist()) == {0, 2}
    assert drawn == []


@pytest.mark.parametrize("mask", [torch.ones(3, 1, 4, 4), torch.ones(4, 4, dtype=torch.long)])
def test_torch_refuses_masks(mask: Tensor, drawn: list[tuple[Tensor, float]]) -> None:
    with faster_on_cpu(), pytest.raises(RuntimeError):
        attention(square, square, square, mask, dropout_p=0.5)
    assert drawn == []


def test_under_autocast_it_is_torchs(drawn: list[tuple[Tensor, float]]) -> None:
    with faster_on_cpu(), torch.autocast("cpu"):
        assert attention(square, square, square, dropout_p=0.5).dtype == torch.bfloat16
    assert drawn == []


def test_checkpoints_draw_the_same_again(drawn: list[tuple[Tensor, float]]) -> None:
    layer, x = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8)), torch.randn(6, 8)
    gradients = []
    for keep in (True, False):
        torch.manual_seed(4)
        with faster_on_cpu():
            y = layer(x) if keep else checkpoint(layer, x, use_reentrant=False)
            gradients.append(torch.autograd.grad(y.square().sum(), list(layer.parameters())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    assert len(drawn) == 3
    assert all(torch.equal(kept, drawn[0][0]) for kept, _ in drawn)


def test_a_run_on_the_cpu_takes_it(
    base: Path, tmp_path: Path, drawn: list[tuple[Tensor, float]]
) -> None:
    train(recipe("mrpc", tmp_path, base, "training.max_steps=2"), tmp_path / "run")
    shapes = {kept.ndim for kept, _ in drawn}
    assert shapes >= {3, 4}  # of hidden states, of attention
