"""The gradient start: the best A and B for the first gradient, for every kind of weight."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dcft_cli import DCFTConfig, adapter_layers, inject, start_from_gradient
from dcft_cli.adapter.functional import delta_weight
from dcft_cli.adapter.initialization import leading_factors
from dcft_cli.adapter.inject import insert
from dcft_cli.targets.resolve import find_targets
from tests.families import tiny_model, tokens
from tests.small import Fused, Packed, SmallExperts, TransposedExperts, linear

LABELS = torch.tensor([0, 1, 0])


def slope(gradient: Tensor, A: Tensor, B: Tensor, kernel_size: int, stride: int) -> Tensor:
    """|dL/dC| at C = 0 for dL/dW = gradient, by autograd."""
    C = torch.zeros(kernel_size, kernel_size, dtype=gradient.dtype, requires_grad=True)
    out_features, in_features = gradient.shape
    dW = delta_weight(
        A, B, C, stride=stride, scale=1.0, out_features=out_features, in_features=in_features
    )
    (dW * gradient).sum().backward()
    return C.grad.norm()


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    kernel_size=st.integers(1, 6),
    shorter=st.integers(0, 5),
    rank=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_no_random_factors_follow_the_gradient_as_far(
    sizes: tuple[int, int], kernel_size: int, shorter: int, rank: int, seed: int
) -> None:
    gradient = random(*sizes, seed=seed)
    stride = max(1, kernel_size - shorter)
    A, B = leading_factors(gradient, kernel_size=kernel_size, stride=stride, rank=rank)
    few = min(rank, A.shape[1]), min(rank, B.shape[0])
    for factor, rows in ((A, few[0]), (B.mT, few[1])):  # as many orthonormal rows as there can be
        singular = torch.linalg.svdvals(factor)
        torch.testing.assert_close(singular, torch.ones(rows, dtype=torch.float64))
    # Square factors have only a sign to choose, and local maxima far from each other.
    assume(rank == 1 or rank < min(A.shape[1], B.shape[0]))
    reached = slope(gradient, A, B, kernel_size, stride)
    for number in range(20):
        a = torch.linalg.svd(random(*A.shape, seed=number), full_matrices=False)
        b = torch.linalg.svd(random(*B.shape, seed=number + 99), full_matrices=False)
        # The power method finds a local maximum, a little lower than the best at worst.
        assert slope(gradient, a.U @ a.Vh, b.U @ b.Vh, kernel_size, stride) <= reached * 1.1


@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_at_equal_stride_it_finds_a_kronecker_product(scale: float) -> None:
    u, v, C = random(5, 1, seed=1), random(1, 7, seed=2), random(4, 4, seed=3)
    A, B = leading_factors(scale * torch.kron(u @ v, C), kernel_size=4, stride=4, rank=1)
    cosines = (A @ v.mT) / v.norm(), (B.mT @ u) / u.norm()
    assert [cosine.abs().item() for cosine in cosines] == pytest.approx([1, 1])


class Squares(nn.Module):
    """The mean square of what another module computes, as a loss."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).square().mean()


class Shared(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = linear(6, 6), linear(6, 6, seed=1)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


class Read(nn.Module):
    """Reads the weight of a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear(6, 6).weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT


KINDS = {
    "linear": lambda: nn.Sequential(linear(10, 6)),
    "fused": Fused,
    "stacked": SmallExperts,
    "stacked and transposed": TransposedExperts,
    "shared": Shared,
    "read": Read,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("stride", "rank"), [(None, 1), (1, 2)])
def test_every_kind_of_weight_starts_in_the_direction_of_its_gradient(
    kind: str, stride: int | None, rank: int
) -> None:
    model = Squares(KINDS[kind]())
    x = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    weights = [p for p in model.parameters() if p.dim() > 1]
    model(x).backward()
    gradients = {id(p): p.grad.clone() for p in weights}
    model.zero_grad(set_to_none=True)
    config = DCFTConfig(3, stride, rank, targets=["*"], init="gradient")
    insert(model, find_targets(model, ["*"]), config, head=())
    assert start_from_gradient(model, [{"x": x}]) == []
    assert all(p.grad is None for p in model.parameters())
    adapters = adapter_layers(model)
    assert adapters
    for adapter in adapters.values():
        gradient = adapter.target.matrix.as_matrix(gradients[id(adapter.target.matrix.parameter)])
        if adapter.rows is not None:
            gradient = gradient[slice(*adapter.rows)]
        assert not adapter.C.any()
        assert not adapter.target.matrix.parameter.requires_grad
        stack = gradient.reshape(-1, *gradient.shape[-2:])
        factors = (f.detach().reshape(len(stack), *f.shape[-2:]) for f in (adapter.A, adapter.B))
        for one, A, B in zip(stack, *factors, strict=True):
            expected = leading_factors(
                one, kernel_size=3, stride=config.effective_stride, rank=rank
            )
            reached, best = (
                slope(one, A, B, 3, config.effective_stride),
                slope(one, *expected, 3, config.effective_stride),
            )
            torch.testing.assert_close(reached, best, rtol=1e-3, atol=1e-9)


def test_a_packed_weight_starts_as_its_full_precision_twin() -> None:
    plain = linear(6, 6)
    packed = Packed(plain, torch.int8)
    unpacked = linear(6, 6)
    with torch.no_grad():
        unpacked.weight.copy_(packed.weight.float().view(6, 6) * packed.scale)
        packed.bias.copy_(unpacked.bias)
    x = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    found = []
    for layer in (packed, unpacked):
        model = Squares(nn.Sequential(layer))
        insert(model, find_targets(model, ["*"]), DCFTConfig(3, targets=["*"]), head=())
        assert start_from_gradient(model, [{"x": x[:2]}, {"x": x[2:]}]) == []
        (adapter,) = adapter_layers(model).values()
        found.append((adapter.A.detach(), adapter.B.detach()))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-3)


def start(model: nn.Module, *, training: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(0)
    inject(model, DCFTConfig(kernel_size=4, init="gradient"))
    model.train(training)
    start_from_gradient(model, [{**tokens(), "labels": LABELS}, {**tokens(1), "labels": LABELS}])
    return {
        f"{name}.{letter}": factor.detach().clone()
        for name, adapter in adapter_layers(model).items()
        for letter, factor in adapter.named_parameters()
    }


def test_the_model_starts_as_its_base_and_nothing_else_changes() -> None:
    model = tiny_model()
    expected = model(**tokens()).logits
    inject(model, DCFTConfig(kernel_size=4, init="gradient"))
    kept = {name: p.clone() for name, p in model.named_parameters() if ".adapters." not in name}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    random_state = torch.get_rng_state()
    start_from_gradient(model.train(), [{**tokens(), "labels": LABELS}])
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(model.eval()(**tokens()).logits, expected)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained
    assert all(p.grad is None for p in model.parameters())
    for name, parameter in model.named_parameters():
        if name in kept:
            assert torch.equal(parameter, kept[name]), name


def test_the_gradient_may_be_that_of_another_loss() -> None:
    batch = {**tokens(), "labels": LABELS}
    starts = []
    for loss in (
        None,
        lambda outputs, batch: outputs.loss,
        lambda outputs, _: outputs.logits[0, 0],
    ):
        model = inject(tiny_model(), DCFTConfig(kernel_size=4, init="gradient"))
        start_from_gradient(model, [batch], loss)
        starts.append(next(iter(adapter_layers(model).values())).A.detach())
    assert torch.equal(starts[0], starts[1])
    assert (starts[0] - starts[2]).abs().max() > 1e-2


def test_the_same_model_and_batches_start_alike() -> None:
    first, second = start(tiny_model()), start(tiny_model())
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_large_models_take_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = start(tiny_model())
    monkeypatch.setattr("dcft_cli.adapter.initialization._MAX_BYTES", 1)
    for name, factor in start(tiny_model()).items():
        torch.testing.assert_close(factor, whole[name], rtol=0, atol=1e-4)


def test_half_precision_weights_start_too() -> None:
    whole, half = start(tiny_model()), start(tiny_model().bfloat16())
    for name, factor in half.items():
        if not name.endswith("C"):  # the sign is free
            cosine = torch.cosine_similarity(factor.flatten(), whole[name].flatten(), 0)
            assert factor.dtype == torch.float32 and cosine.abs() > 0.9, name


def test_without_a_gradient_adapters_keep_their_start() -> None:
    model = tiny_model()
    nn.init.zeros_(model.classifier.weight)  # no gradient passes
    inject(model, DCFTConfig(kernel_size=4, init="gradient"))
    before = {name: adapter.A.clone() for name, adapter in adapter_layers(model).items()}
    without = start_from_gradient(model, [{**tokens(), "labels": LABELS}])
    assert without == list(before)
    for name, adapter in adapter_layers(model).items():
        assert torch.equal(adapter.A, before[name])
        assert not adapter.C.any()
