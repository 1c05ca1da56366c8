"""Attention in Triton kernels: what surrounds them, by the package's own PyTorch form on the CPU.

The kernels themselves run in tests/training/test_cuda.py.
"""

from importlib import import_module

import pytest
import torch
from transformers import PreTrainedConfig

from dcft_cli import DCFTConfig, inject
from dcft_cli.attention import check_fused, confirm_fused, fused, set_attention
from dcft_cli.errors import ModelError, UserError
from tests.acceleration.test_deberta_attention import WAYS, assert_same, batch, deberta, results
from tests.families import config_of

# Of Linux alone; a fault of our own module is none of its absence.
pytest.importorskip("disentangled_flash", reason="needs the extra deberta")
kernels = import_module("dcft_cli.attention.kernels")
CUDA = torch.device("cuda")


@pytest.mark.parametrize("way", ["shared", "own projections", "c2p", "p2c"])
@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "adapted"])
def test_values_gradients_and_names_are_those_of_transformers(way: str, adapted: bool) -> None:
    fused = deberta(**WAYS[way])
    set_attention(fused, "fused")
    model = deberta(**WAYS[way])
    assert sum(isinstance(m, kernels.FusedAttention) for m in fused.modules()) == 2
    assert not any(p.is_meta for p in fused.parameters())
    if adapted:  # at random, but alike
        config = DCFTConfig(kernel_size=4, targets=("Q", "K", "V", "O", "FFN"))
        model, fused = (inject(m, config, head=()).double() for m in (model, fused))
        fused.load_state_dict(model.state_dict())
    assert fused.state_dict().keys() == model.state_dict().keys()
    assert_same(results(fused, batch(11)), results(model, batch(11)))


def test_dropout_is_on_in_training_alone() -> None:
    model = deberta(attention_probs_dropout_prob=0.5)
    set_attention(model.train(), "fused")
    first, second = (model(**batch(9)).last_hidden_state for _ in range(2))
    assert not torch.allclose(first, second)
    first, second = (model.eval()(**batch(9)).last_hidden_state for _ in range(2))
    torch.testing.assert_close(first, second)


def test_a_layer_is_confirmed_before_it_is_used() -> None:
    model = deberta(initializer_range=0.1, attention_probs_dropout_prob=0.5).float().train()
    set_attention(model, "fused")
    state = torch.random.get_rng_state()
    confirm_fused(model, torch.device("cpu"), torch.bfloat16)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda context, table: context * 1.2, "output"),
        (lambda context, table: context + (context - context.detach()), "gradient"),
        (lambda context, table: context + (t := table.sum()) - t.detach(), "gradient of the"),
    ],
)
def test_kernels_that_compute_something_else(
    change: object, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = deberta(initializer_range=0.1).float()
    set_attention(model, "fused")
    right = kernels.FusedAttention.forward

    def wrong(self: object, *args: object, rel_embeddings: torch.Tensor, **rest: object) -> tuple:
        context, none = right(self, *args, rel_embeddings=rel_embeddings, **rest)
        return change(context, rel_embeddings), none

    monkeypatch.setattr(kernels.FusedAttention, "forward", wrong)
    with pytest.raises(ModelError, match=f"another {what} .*on this device"):
        confirm_fused(model, torch.device("cpu"), torch.bfloat16)


def test_a_layer_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no kernel image\nis available")

    model = deberta().float()
    set_attention(model, "fused")
    monkeypatch.setattr(kernels.FusedAttention, "forward", fails)
    with pytest.raises(ModelError, match=r"does not run on this device: no kernel image\nSet"):
        confirm_fused(model, torch.device("cpu"), torch.float32)


def test_other_models_are_left_alone_and_other_kinds_take_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = deberta()
    set_attention(model, "fused")
    set_attention(model, "auto")
    assert not any(isinstance(m, kernels.FusedAttention) for m in model.modules())
    assert_same(results(model, batch(7)), results(deberta(), batch(7)))
    monkeypatch.setattr(fused, "find_spec", lambda name: None)
    set_attention(deberta(relative_attention=False, pos_att_type=[]), "fused")
    with pytest.raises(UserError, match="needs the package disentangled-flash"):
        set_attention(deberta(), "fused")


def test_a_mask_of_keys_alone() -> None:
    model, theirs = deberta(), deberta()
    set_attention(model, "fused")
    states, mask = torch.randn(2, 5, 24).double(), torch.ones(2, 1, 1, 5)
    ours, given = (
        m.encoder.layer[0].attention.self(
            states, mask, relative_pos=m.encoder.get_rel_pos(states),
            rel_embeddings=m.encoder.get_rel_embedding(),
        )[0]
        for m in (model, theirs)
    )  # fmt: skip
    torch.testing.assert_close(ours, given)


def heads_of(size: int, family: str = "deberta-v2", **settings: object) -> PreTrainedConfig:
    return config_of(family, hidden_size=2 * size, num_attention_heads=2, **settings)


@pytest.mark.parametrize(
    ("config", "device", "message"),
    [
        (heads_of(64), torch.device("cpu"), "needs a CUDA device, and this run is on cpu"),
        (heads_of(48), CUDA, r"no kernel for heads of 48 values \(it has for 32, 64, 128\)"),
        (heads_of(64, "bert"), CUDA, "is for DeBERTa v2 and v3, .* type bert"),
        (heads_of(64, relative_attention=False), CUDA, "is for DeBERTa v2 and v3"),
    ],
)
def test_where_it_cannot_be_had(
    config: PreTrainedConfig, device: torch.device, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_fused(config, device)
    assert "model.attention=auto" in caught.value.hint


@pytest.mark.parametrize("missing", ["disentangled_flash", "triton"])
def test_a_package_that_is_not_installed(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(UserError, match=f"needs the package {missing.replace('_', '-')}") as caught:
        check_fused(heads_of(64), CUDA)
    assert 'pip install "dcft-cli[deberta]"' in caught.value.hint


def test_all_that_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "find_spec", lambda name: object())
    assert check_fused(heads_of(64), CUDA) is None
