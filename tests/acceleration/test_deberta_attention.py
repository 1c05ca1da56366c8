"""DeBERTa's attention by distance against transformers' own: values and gradients."""

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, DebertaV2Config
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

from dcft_cli import DCFTConfig, inject
from dcft_cli.acceleration import enable
from dcft_cli.acceleration.deberta_attention import AttentionByDistance, disentangled_scores
from dcft_cli.training.checkpointing import checkpoint_activations
from tests.acceleration.both_ways import assert_same_both_ways, outputs_and_gradients
from tests.families import tiny_model

# Head sizes whose scale is a whole number: transformers computes it in float32.
BOTH, ONE = {"hidden_size": 24}, {"hidden_size": 16}
WAYS = {
    "shared": {**BOTH, "share_att_key": True, "pos_att_type": ["p2c", "c2p"]},
    "own projections": {**BOTH, "share_att_key": False, "pos_att_type": ["c2p", "p2c"]},
    "c2p": {**ONE, "share_att_key": True, "pos_att_type": ["c2p"]},
    "p2c": {**ONE, "share_att_key": False, "pos_att_type": ["p2c"]},
    "no term": {"hidden_size": 8, "share_att_key": True, "pos_att_type": []},
}


def deberta(**settings: object) -> nn.Module:
    """A random one in float64, whose weights are large enough for its scores to differ."""
    torch.manual_seed(0)
    config = DebertaV2Config(
        **{
            "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
            "vocab_size": 50, "max_position_embeddings": 64, "relative_attention": True,
            "position_buckets": 8, "norm_rel_ebd": "layer_norm", "position_biased_input": False,
            "type_vocab_size": 0, "initializer_range": 0.5, "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0, **WAYS["shared"], **settings,
        }
    )  # fmt: skip
    return AutoModel.from_config(config).double().eval()


def shorter(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    enable(model)
    assert any(isinstance(module, AttentionByDistance) for module in model.modules())
    return model


def batch(length: int, rows: int = 3) -> dict[str, Tensor]:
    ids = torch.randint(0, 50, (rows, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[-1, (length + 1) // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def results(model: nn.Module, length: int) -> tuple[Tensor, dict[str, Tensor]]:
    """States of all tokens, padding included, and the gradients of a sum of them."""
    return outputs_and_gradients(model, lambda model: model(**batch(length)).last_hidden_state)


def assert_same_as_transformers(model: nn.Module, length: int) -> None:
    on = assert_same_both_ways(model, lambda model: model(**batch(length)).last_hidden_state)
    assert "attention" in on


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("buckets", "length"), [(8, 5), (8, 30), (-1, 12), (3, 1)])
def test_values_and_gradients_are_those_of_transformers(
    way: str, buckets: int, length: int
) -> None:
    model = deberta(**WAYS[way], position_buckets=buckets)
    assert_same_as_transformers(model, length)


def test_lengths_at_which_the_table_is_projected_whole() -> None:
    model = deberta(position_buckets=8)  # 16 rows: up to 7 tokens need fewer
    for length in (7, 8, 9):
        assert_same_as_transformers(model, length)


def attention_by_hand(q: Tensor, k: Tensor, to_keys: Tensor, to_queries: Tensor) -> Tensor:
    """Scores pair by pair, as Eq. 4 of arXiv 2006.03654 has them."""
    heads, rows, length, _ = q.shape
    scores = torch.zeros(heads, rows, length, length, dtype=q.dtype)
    for i in range(length):
        for j in range(length):
            pair = q[:, :, i] * k[:, :, j]
            down, up = length - 1 - (i - j), length - 1 + (i - j)
            pair = pair + q[:, :, i] * to_keys[..., down]
            pair = pair + k[:, :, j] * to_queries[..., up]
            scores[:, :, i, j] = pair.sum(-1)
    return scores


def pieces(tables: int = 1, *, heads: int = 3, length: int = 4, size: int = 2) -> list[Tensor]:
    """Queries and keys of two rows, and tables of positions: one for both, or one each."""
    torch.manual_seed(0)
    shapes = [(heads, 2, length, size)] * 2 + [(heads, tables, size, 2 * length)] * 2
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("tables", [1, 2])
def test_scores_are_those_of_the_equation(tables: int) -> None:
    tensors = pieces(tables)
    hidden = torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[1, :, 3] = True
    scores = disentangled_scores(*tensors, hidden)
    expected = attention_by_hand(*tensors)
    assert (scores[:, 1, :, 3] == torch.finfo(torch.float64).min).all()
    torch.testing.assert_close(scores[:, ~hidden], expected[:, ~hidden])


def test_adapters_get_the_gradients_of_transformers_attention() -> None:
    model = deberta()
    config = DCFTConfig(kernel_size=4, targets=("Q", "K", "V", "O", "FFN"))
    model = inject(model, config, head=()).double()
    assert_same_as_transformers(model, 11)


def test_attention_probabilities_can_be_had() -> None:
    model, inputs = deberta(), batch(6)
    ours = shorter(model)(**inputs, output_attentions=True).attentions
    theirs = model(**inputs, output_attentions=True).attentions
    assert len(ours) == len(theirs) == 2
    for own, given in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, given)


def test_dropout_of_attention() -> None:
    model = shorter(deberta(attention_probs_dropout_prob=0.5)).train()
    first, second = (model(**batch(9)).last_hidden_state for _ in range(2))
    assert not torch.allclose(first, second)


def test_gradient_checkpointing() -> None:
    model = deberta().train()
    checkpoint_activations(model)
    assert_same_as_transformers(model, 9)


def test_autocast() -> None:
    model = deberta(initializer_range=0.1).float()
    with torch.autocast("cpu", torch.bfloat16):
        states = shorter(model)(**batch(16)).last_hidden_state
        theirs = model(**batch(16)).last_hidden_state
    exact = model(**batch(16)).last_hidden_state
    assert (states - exact).abs().max() < 2 * (theirs - exact).abs().max()


def test_half_precision_weights() -> None:
    model = deberta(initializer_range=0.1).float()
    exact = results(model, 16)
    ours = results(shorter(model).bfloat16(), 16)
    theirs = results(copy.deepcopy(model).bfloat16(), 16)
    assert (ours[0] - exact[0]).abs().max() < 2 * (theirs[0] - exact[0]).abs().max()
    for name, gradient in exact[1].items():
        error, given = ((r[1][name] - gradient).norm() for r in (ours, theirs))
        assert error < 2 * given + 1e-3 * gradient.norm(), name


def test_compiled_in_one_graph() -> None:
    model = shorter(deberta())
    expected = results(model, 9)
    compiled = copy.deepcopy(model)
    compiled.compile(backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(results(compiled, 9), expected)


def test_other_models_and_other_calls_are_left_alone() -> None:
    bert = tiny_model("bert")
    enable(bert)
    assert not any(isinstance(module, AttentionByDistance) for module in bert.modules())

    absolute = deberta(relative_attention=False, pos_att_type=None, position_biased_input=True)
    enable(absolute)
    assert not any(isinstance(module, AttentionByDistance) for module in absolute.modules())

    model = deberta()
    layer = next(m for m in shorter(model).modules() if isinstance(m, AttentionByDistance))
    own = next(m for m in model.modules() if type(m) is DisentangledSelfAttention)
    states, table = torch.randn(2, 5, 24).double(), torch.randn(16, 24).double()
    mask = torch.ones(2, 1, 5, 5)
    given = {"rel_embeddings": table}  # no positions: both make them
    torch.testing.assert_close(layer(states, mask, **given)[0], own(states, mask, **given)[0])


def test_scores_too_large_for_float16_before_they_are_scaled() -> None:
    model = deberta(hidden_size=128).float()
    layer = model.encoder.layer[0].attention.self
    for projection in (layer.query_proj, layer.key_proj):
        nn.init.constant_(projection.weight, 2.0)
    states = torch.full((1, 4, 128), 0.25)
    scores = layer.query_proj(states)[..., :64].square().sum()
    assert scores / 4 > torch.finfo(torch.float16).max  # of one token, in one head
    given = {"attention_mask": torch.ones(1, 4)}
    ours, theirs = (m.half().encoder(states.half(), **given)[0] for m in (shorter(model), model))
    assert theirs.isfinite().all() and ours.isfinite().all()
