"""The places of bottlenecks are right: checked on what flows through tiny models."""

from collections.abc import Iterable
from functools import cache

import pytest
import torch
import transformers
from torch import Tensor, nn

from dcft_cli.errors import TargetError
from dcft_cli.methods.places import Sum, block_outputs, output_of, sum_of
from dcft_cli.targets.resolve import find_roles
from tests.architectures.tiny import example, tiny_model

BERT_LIKE = (
    "bert big_bird camembert canine convbert data2vec-text deberta deberta-v2 electra ernie "
    "layoutlm lilt longformer luke markuplm mpnet mra nystromformer rembert roberta roc_bert "
    "roformer tapas xlm-roberta yoso"
).split()
POST_LN = [*BERT_LIKE, "albert", "distilbert", "gte", "jina_embeddings_v3", "nomic_bert"]
PRE_LN = ["modernbert", "eurobert", "ultrabert"]
FAMILIES = [f for f in POST_LN + PRE_LN if f in transformers.CONFIG_MAPPING]  # some are new


@cache
def model_of(family: str) -> transformers.PreTrainedModel:
    return tiny_model(family)


def run(
    family: str, watched: Iterable[str], doubled: str = ""
) -> dict[str, tuple[Tensor | None, Tensor]]:
    """Run a model; return the first input and the output of each module's first call.

    Args:
        doubled: a layer whose output is doubled.
    """
    model = model_of(family)
    seen: dict[str, tuple[Tensor | None, Tensor]] = {}
    hooks = []
    if doubled:
        layer = model.get_submodule(doubled)
        hooks.append(layer.register_forward_hook(lambda module, args, output: 2 * output))

    def watch(name: str, module: nn.Module) -> None:
        def note(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            seen.setdefault(name, (args[0] if args else None, output))

        hooks.append(module.register_forward_hook(note))

    for name in watched:
        watch(name, model.get_submodule(name))
    with torch.no_grad():
        model(**example(family, model.config))
    for hook in hooks:
        hook.remove()
    return seen


def outputs(family: str, *roles: str) -> list[str]:
    model = model_of(family)
    return [matrix.path for matrix in block_outputs("houlsby", model, find_roles(model), roles)]


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_reads_what_the_layer_puts_out(family: str) -> None:
    layers = outputs(family, "O", "FFN_OUT")
    places = {layer: output_of(model_of(family), layer) for layer in layers}
    assert all((place != layer) == (family in BERT_LIKE) for layer, place in places.items())
    seen = run(family, {*places, *places.values()})
    for layer, place in places.items():
        if place != layer and layer in seen:
            assert isinstance(model_of(family).get_submodule(place), nn.Dropout)
            torch.testing.assert_close(seen[place][0], seen[layer][1], rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_sum_grows_by_the_output_of_the_block(family: str) -> None:
    layer = outputs(family, "FFN_OUT")[0]
    place = sum_of("pfeiffer", model_of(family), layer)
    assert place.normed == (family in POST_LN)
    watched = (layer, place.name)
    before, after = run(family, watched), run(family, watched, doubled=layer)
    which = 0 if place.normed else 1
    torch.testing.assert_close(
        after[place.name][which] - before[place.name][which], before[layer][1], atol=1e-5, rtol=0
    )


def test_norm_of_the_attention_is_not_taken_for_that_of_the_block() -> None:
    assert sum_of(
        "pfeiffer", model_of("distilbert"), "distilbert.transformer.layer.0.ffn.lin2"
    ) == (Sum("distilbert.transformer.layer.0.output_layer_norm", normed=True))


@pytest.mark.parametrize("family", ["t5", "bart", "mbart", "roberta-prelayernorm", "gemma2"])
def test_sum_in_doubt_is_an_error(family: str) -> None:
    layer = outputs(family, "FFN_OUT")[0]
    with pytest.raises(TargetError, match=f"models of type {family}: the LayerNorm behind") as e:
        sum_of("pfeiffer", model_of(family), layer)
    assert "lora" in e.value.hint


@pytest.mark.parametrize(
    ("family", "problem"),
    [("fnet", "has no layer with the role O"), ("squeezebert", "is no linear layer of its own")],
)
def test_blocks_without_a_layer_of_their_own(family: str, problem: str) -> None:
    with pytest.raises(TargetError, match=problem):
        outputs(family, "O", "FFN_OUT")
