"""Roles of weights, inferred from the names that model families give their layers.

A name is read from its end, together with the kind of module around it: `output.dense` under
an attention is another role than under a layer. No table of models; a new one that names its
layers as others do is recognized.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from dcft_cli.targets.weights import Matrix

# A segment that names an attention ("self_attn", "SelfAttention", "attentions.3"), and BERT's
# "attention.self".
_ATTENTION = r"(?:^|\.)\w*att(?:n|ention)s?(?:\.\d+)?(?:\.self)?\."
_IN_ATTENTION = {
    "Q": r"Wq|(?:q|query)(?:_(?:proj|lin|head|global|attn|a_proj|b_proj|gate_proj))?"
    r"|experts\.input_linear",
    "K": r"Wk|(?:k|key)(?:_(?:proj|lin|head|global))?",
    "V": r"Wv|(?:v|value)(?:_(?:proj|lin|head|global))?",
    "O": r"o|Wo|(?:o|out|c|post)_proj|proj|out_lin|dense|output|output\.dense|conv1d"
    r"|experts\.output_linear",
}
_IN_LAYER = {
    "FFN_IN": r"intermediate\.(?:dense|conv1d)|dense\.dense|ffn|ffn\.0|lin1|linear_1|layer_1|fc1"
    r"|fc_in|c_fc|mlp\.dense1|dense_h_to_4h|wi|wi_0|wi_1|Wi|up_proj|gate_proj|gate_up_proj"
    r"|input_linear",
    "FFN_OUT": r"output\.(?:dense|conv1d)|ffn_output|ffn\.2|lin2|linear_2|layer_2|fc2|fc_out"
    r"|c_proj|mlp\.dense2|dense_4h_to_h|wo|Wo|down_proj|output_linear",
}
# Projections that are fused in one weight. Block after block, roles select rows of it; one head
# after the other, the roles cannot be separated, and only all of them together can be chosen.
_BLOCKS = {
    "Q+K+V": r"Wqkv|qkv|qkv_proj|c_attn|in_proj_qkv|in_proj_weight",
    "K+V": r"kv_proj",
}
_BY_HEAD = {
    "Q+K+V": r"query_key_value|in_proj|in_proj_qkvz",
    "K+V": r"kv_a_proj_with_mqa|kv_b_proj",
    "Q+K": r"query_key",
}
# Small parts outside the layers that use the same names.
_BESIDE = re.compile(r"norm|bottleneck|adapter|projector|connector|merger|pooler|embed", re.I)
_CROSS = re.compile(r"(?:cross|encdec|encoder_?att)", re.I)

_CROSS_ROLES = ("CROSS_Q", "CROSS_K", "CROSS_V", "CROSS_O")
GROUPS = {"FFN": ("FFN_IN", "FFN_OUT"), "CROSS": _CROSS_ROLES}
ROLES = (*_IN_ATTENTION, *_IN_LAYER, *_CROSS_ROLES, *GROUPS)


def _ends(names: str, context: str = r"(?:^|\.)") -> re.Pattern[str]:
    return re.compile(rf"{context}(?:{names})$", re.IGNORECASE)


_ROLE_OF_NAME = {role: _ends(names, _ATTENTION) for role, names in _IN_ATTENTION.items()} | {
    role: _ends(names) for role, names in _IN_LAYER.items()
}
_BLOCKS_OF_NAME = {roles: _ends(names, _ATTENTION) for roles, names in _BLOCKS.items()}
_HEADS_OF_NAME = {roles: _ends(names, _ATTENTION) for roles, names in _BY_HEAD.items()}


class Block(NamedTuple):
    """Rows of a weight with one role; `rows` None: the whole weight.

    Roles that cannot be separated are joined, as in "Q+K+V".
    """

    role: str
    rows: tuple[int, int] | None = None


def members(role: str) -> tuple[str, ...]:
    """Return the single roles of a block."""
    return tuple(role.split("+"))


def blocks_of(matrix: Matrix, model: nn.Module, others: Mapping[str, Matrix]) -> list[Block]:
    """Return the roles of a weight; none outside attention projections and feed-forward layers.

    Args:
        model: the model that it belongs to.
        others: all weights of the model by name, from which sizes of fused blocks follow.
    """
    name = matrix.name
    inside = name.partition(".")[2]  # the first segment names the model ("xlm_prelayernorm")
    if _BESIDE.search(inside):
        return []
    cross = "CROSS_" if _CROSS.search(inside) else ""

    def labelled(roles: str) -> str:
        return "+".join(f"{cross}{role}" for role in members(roles))

    for roles, ends in _HEADS_OF_NAME.items():
        if ends.search(name):
            return [Block(labelled(roles))]
    for roles, ends in _BLOCKS_OF_NAME.items():
        if ends.search(name):
            attention = model.get_submodule(_parent(matrix))
            if hasattr(attention, "q_attn"):  # GPT-2's cross-attention has separate queries
                roles = "K+V"
            sizes = _block_sizes(matrix, roles, attention, others)
            if sizes is None:
                return [Block(labelled(roles))]
            starts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
            return [
                Block(f"{cross}{role}", (starts[number], starts[number + 1]))
                for number, role in enumerate(members(roles))
            ]
    for role, ends in _ROLE_OF_NAME.items():
        if ends.search(name):
            return [Block(f"{cross}{role}" if role in _IN_ATTENTION else role)]
    return []


def _block_sizes(
    matrix: Matrix, roles: str, attention: nn.Module, others: Mapping[str, Matrix]
) -> list[int] | None:
    """Return the number of rows of each block; None where heads are interleaved."""
    out = matrix.out_features
    if roles == "K+V":
        return [out // 2, out // 2]
    # Of the families with such names only these interleave: MiniMax's lightning attention,
    # CodeGen, and GPT-BigCode where its heads do not share keys and values.
    by_head = re.search("lightning|codegen", type(attention).__name__, re.IGNORECASE)
    if by_head or not getattr(attention, "multi_query", True):
        return None
    # The output projection reads as many features as there are queries; where keys and values
    # are fewer than queries (grouped-query attention), they are equally many.
    reads = [
        other.in_features
        for other in others.values()
        if _parent(other) == _parent(matrix) and _ROLE_OF_NAME["O"].search(other.name)
    ]
    queries = reads[0] if reads else out // 3
    if matrix.name.endswith("in_proj_qkv"):  # linear attention: as many as there are values
        return [(out - queries) // 2, (out - queries) // 2, queries]
    return [queries, (out - queries) // 2, (out - queries) // 2]


def _parent(matrix: Matrix) -> str:
    return matrix.name.rpartition(".")[0]
