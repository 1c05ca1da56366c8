"""Where bottlenecks go in a transformer layer: behind its attention and its feed-forward block.

The output f of a block goes through a dropout and is added to the block's input x:

    post-LN, as in BERT:        y = LayerNorm(f + x)
    pre-LN, as in ModernBERT:   y = f + x

The last linear layer of a block is known from its role. The modules around it are inferred from
their place and kind, where these leave no doubt.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn

from dcft_cli.errors import TargetError
from dcft_cli.targets.resolve import Target
from dcft_cli.targets.weights import Matrix

# What a layer calls the norm of f + x where that lies beside the feed-forward block: DistilBERT,
# ALBERT, Nomic BERT and its kin.
_OUTPUT_NORMS = ("output_layer_norm", "full_layer_layer_norm", "post_mlp_layernorm")
# All norms of layers that put out f + x itself: ModernBERT; Llama and EuroBERT.
_INPUT_NORMS = ({"mlp_norm"}, {"attn_norm", "mlp_norm"})
_LLAMA = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


class Sum(NamedTuple):
    """Where f + x of a feed-forward block is found.

    Attributes:
        name: of a module.
        normed: the module is the LayerNorm of f + x; else f + x is what it puts out.
    """

    name: str
    normed: bool


def block_outputs(
    method: str, model: nn.Module, targets: Sequence[Target], roles: Sequence[str]
) -> list[Matrix]:
    """Return the last linear layers of attention or feed-forward blocks.

    Args:
        method: its name, for messages.
        roles: O for attention, FFN_OUT for feed-forward blocks.

    Raises:
        TargetError: the model has no such layers, or they are no plain linear layers.
    """
    found = [target for target in targets if target.role in roles]
    if missing := [role for role in roles if role not in {target.role for target in found}]:
        raise no_place(method, model, f"it has no layer with the role {' or '.join(missing)}")
    for target in found:
        if set(target.layout) - {"transposed"}:
            raise no_place(method, model, f"{target.name} is no linear layer of its own")
    return [target.matrix for target in found]


def output_of(model: nn.Module, layer: str) -> str:
    """Return the name of the module that puts out f: the dropout behind a layer, or the layer.

    The dropout is found where nothing but it and a norm lies beside the layer, as in all copies
    of BERT's code. Elsewhere (DistilBERT's feed-forward blocks, ALBERT, ModernBERT) a dropout
    behind the layer acts on the changed f. In evaluation, and at rate 0, that is the same.
    """
    for parent, child in _parents(layer):
        beside = _beside(model, parent, child)
        dropouts = [name for name, module in beside.items() if isinstance(module, nn.Dropout)]
        others = [module for module in beside.values() if not isinstance(module, nn.Dropout)]
        if len(dropouts) == 1 and all(map(_is_norm, others)):
            return f"{parent}.{dropouts[0]}"
    return layer


def sum_of(method: str, model: nn.Module, layer: str) -> Sum:
    """Return where f + x is found for the last layer of a feed-forward block.

    Raises:
        TargetError: it is in doubt.
    """
    parent, child = next(_parents(layer))
    beside = _beside(model, parent, child)
    norms = [name for name, module in beside.items() if _is_norm(module)]
    others = [module for module in beside.values() if not _is_norm(module)]
    if len(norms) == 1 and all(isinstance(module, nn.Dropout) for module in others):
        return Sum(f"{parent}.{norms[0]}", normed=True)  # as in BERT's code
    whole = layer  # the transformer layer around it, by its number
    while whole and not whole.rpartition(".")[2].isdigit():
        whole = whole.rpartition(".")[0]
    children = dict(model.get_submodule(whole).named_children())
    norms = [name for name, module in children.items() if _is_norm(module)]
    if set(norms) in _INPUT_NORMS or (len(norms) == 2 and children.keys() >= _LLAMA):
        return Sum(whole, normed=False)
    if "input_layernorm" not in children:  # GLM normalizes f too, before the sum
        for name in norms:
            if name in _OUTPUT_NORMS:
                return Sum(f"{whole}.{name}", normed=True)
    raise no_place(method, model, f"the LayerNorm behind {layer} is not known")


def no_place(method: str, model: nn.Module, problem: str) -> TargetError:
    """Return the error that says why a bottleneck method does not fit a model."""
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    return TargetError(
        f"{method} cannot go into models of type {kind}: {problem}.",
        "Methods that change the weights themselves can: dcft, full, bitfit, lora and its kin.",
    )


def _parents(layer: str) -> Iterator[tuple[str, str]]:
    """Yield the parent of a layer and its parent, each with the child that leads to the layer."""
    for _ in range(2):
        layer, _, child = layer.rpartition(".")
        if layer:
            yield layer, child


def _beside(model: nn.Module, parent: str, child: str) -> dict[str, nn.Module]:
    children = model.get_submodule(parent).named_children()
    return {name: module for name, module in children if name != child}


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__
