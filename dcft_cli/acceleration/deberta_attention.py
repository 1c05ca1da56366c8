"""DeBERTa's disentangled attention, computed in fewer steps than transformers does.

To the scores of queries and keys DeBERTa (arXiv 2006.03654, Eq. 4) adds two terms of the distance
i - j of their places: Q_i . K^r and K_j . Q^r, where K^r and Q^r are projections of a table of
relative positions. transformers projects the whole table (512 rows) in every layer, copies it for
every text of the batch, multiplies by all of it and gathers what each pair needs, which the
backward pass scatters. Here only the 2 L - 1 distances of a batch of length L are projected, once
for all texts. Pairs of one distance then lie on a diagonal of the products, (L, 2 L): a view of
them, one value a row further, is the matrix of pairs, and nothing is gathered:

    (Q K^r^T)[i, L - 1 - (i - j)] is element i (2 L - 1) + j + (L - 1) of its matrix,
    (K Q^r^T)[j, L - 1 + (i - j)] is element j (2 L - 1) + i + (L - 1).

The numbers are the same but for rounding.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import softmax
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

# Values of the position products that are made at a time on a CPU: 1 MB of float32 stays in cache.
# Scores of 8 x 128 tokens in 12 heads, with their gradients: 24.5 ms so, 31.8 ms all at once.
_AT_A_TIME = 2**18


def speed_up_attention(model: nn.Module) -> None:
    """Has the DeBERTa (v2, v3) layers of a model compute their attention the shorter way.

    In place; parameters, their names and what is saved stay as they are. Other models are left
    alone.
    """
    for module in model.modules():
        if type(module) is DisentangledSelfAttention and module.relative_attention:
            module.__class__ = _Attention


class _Attention(DisentangledSelfAttention):
    """In the place of transformers' own, with its parameters."""

    replaces = DisentangledSelfAttention

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As transformers' own: hidden_states (B, L, hidden), attention_mask (B, 1, L, L).

        relative_pos (1, L, L) must be a function of i - j, as the encoder makes it.
        """
        if query_states is not None or relative_pos is None or relative_pos.shape[:-2] != (1,):
            # Not by a whole DeBERTa: its encoder gives every layer the same positions of all pairs.
            own: Any = super().forward
            result: tuple[Tensor, Tensor | None] = own(
                hidden_states, attention_mask, output_attentions,
                query_states, relative_pos, rel_embeddings,
            )  # fmt: skip
            return result
        B, L, _ = hidden_states.shape
        terms = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        # Before the products, which float16 might not hold; either has one scaled factor.
        scale = (self.attention_head_size * terms) ** -0.5
        q = self._heads(self.query_proj(hidden_states) * scale)
        k = self._heads(self.key_proj(hidden_states))
        v = self._heads(self.value_proj(hidden_states))
        to_keys, to_queries = self._positions(relative_pos, self.pos_dropout(rel_embeddings))
        if to_queries is not None:
            to_queries = to_queries * scale
        hidden = ~attention_mask.bool()[:, 0]
        compute = _scores if torch.compiler.is_compiling() else _Scores.apply
        scores = compute(q, k, to_keys, to_queries, hidden)
        probabilities = self.dropout(softmax(scores, dim=-1))  # (heads, B, L, L)
        context = torch.bmm(probabilities.flatten(0, 1), v.flatten(0, 1)).view(v.shape)
        context = context.permute(1, 2, 0, 3).reshape(B, L, self.all_head_size)
        return context, probabilities.transpose(0, 1) if output_attentions else None

    def _heads(self, x: Tensor) -> Tensor:
        """(B, L, hidden) to (heads, B, L, head size): positions are the same for all texts."""
        parts = x.view(*x.shape[:-1], self.num_attention_heads, self.attention_head_size)
        return parts.permute(2, 0, 1, 3).contiguous()

    def _positions(
        self, relative_pos: Tensor, table: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """K^r and Q^r by distance, (heads, head size, 2 L) each; None where the model has none.

        Columns of K^r: distances L - 1 down to 1 - L; of Q^r the other way. Both end in one that
        is never read, which makes the rows of the products even.
        """
        first, last = relative_pos[0, 0], relative_pos[0, -1]
        distances = torch.cat([last, first[1:], first[-1:]])
        to_keys = to_queries = None
        if "c2p" in self.pos_att_type:
            project = self.key_proj if self.share_att_key else self.pos_key_proj
            to_keys = self._projected(project, table, distances)
        if "p2c" in self.pos_att_type:
            project = self.query_proj if self.share_att_key else self.pos_query_proj
            to_queries = self._projected(project, table, -distances)
        return to_keys, to_queries

    def _projected(self, project: nn.Module, table: Tensor, distances: Tensor) -> Tensor:
        """Rows of the table for distances, (heads, head size, distances)."""
        span = self.pos_ebd_size
        places = torch.clamp(distances + span, 0, 2 * span - 1)
        if len(places) < 2 * span:
            rows: Tensor = project(table[places])
        else:
            rows = project(table[: 2 * span])[places]
        return rows.view(len(places), self.num_attention_heads, -1).permute(1, 2, 0)


def _by_key(products: Tensor) -> Tensor:
    """(..., L, 2 L), a row for a query, columns by falling distance: to (..., L, L) of pairs."""
    L, W = products.shape[-2:]
    shifted = products.flatten(-2)[..., L - 1 : -1]
    return shifted.view(*shifted.shape[:-1], L, W - 1)[..., :L]


def _by_query(products: Tensor) -> Tensor:
    """(..., L, 2 L), a row for a key, columns by rising distance: to (..., L, L) of pairs."""
    return _by_key(products).mT


def _scores(
    q: Tensor, k: Tensor, to_keys: Tensor | None, to_queries: Tensor | None, hidden: Tensor
) -> Tensor:
    """Scores of all pairs, hidden ones at the least value of their type.

    Args:
        q, k: (heads, B, L, head size), q scaled.
        to_keys, to_queries: K^r, and Q^r scaled, (heads, head size, 2 L), or None.
        hidden: (B, L, L), True where a query may not see a key.

    Returns:
        (heads, B, L, L).
    """
    scores = q @ k.mT
    if to_keys is not None:
        scores = scores + _by_key((q.flatten(1, 2) @ to_keys).view(*q.shape[:3], -1))
    if to_queries is not None:
        scores = scores + _by_query((k.flatten(1, 2) @ to_queries).view(*k.shape[:3], -1))
    return scores.masked_fill(hidden, torch.finfo(scores.dtype).min)


class _Scores(Function):
    """`_scores` some heads at a time, with room for their position products made but once."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        to_keys: Tensor | None,
        to_queries: Tensor | None,
        hidden: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(q, k, to_keys, to_queries, hidden)
        heads, B, L, _ = q.shape
        scores = q.new_empty(heads, B, L, L)
        least = torch.finfo(scores.dtype).min
        room = _room(q)
        for some in _groups(q):
            part = scores[some]
            products = room[: len(part)]
            torch.bmm(q[some].flatten(0, 1), k[some].flatten(0, 1).mT, out=part.flatten(0, 1))
            for rows, columns, pairs in ((q, to_keys, _by_key), (k, to_queries, _by_query)):
                if columns is not None:
                    torch.bmm(rows[some].flatten(1, 2), columns[some], out=products.flatten(1, 2))
                    part += pairs(products)
            part.masked_fill_(hidden, least)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, to_keys, to_queries, hidden = ctx.saved_tensors
        to_q, to_k = torch.empty_like(q), torch.empty_like(k)
        terms = []
        to_columns: list[Tensor | None] = [None, None]
        for i, (rows, to_rows, columns, pairs) in enumerate(
            ((q, to_q, to_keys, _by_key), (k, to_k, to_queries, _by_query))
        ):
            if columns is not None:
                if ctx.needs_input_grad[2 + i]:
                    to_columns[i] = torch.empty_like(columns)
                # Only its diagonals are written: what is around them stays 0.
                room = _room(q).zero_()
                terms.append((rows, to_rows, columns, pairs, room, to_columns[i]))
        for some in _groups(q):
            part = gradient[some].masked_fill(hidden, 0)
            texts = part.flatten(0, 1)
            torch.bmm(texts, k[some].flatten(0, 1), out=to_q[some].flatten(0, 1))
            torch.bmm(texts.mT, q[some].flatten(0, 1), out=to_k[some].flatten(0, 1))
            for rows, to_rows, columns, pairs, room, to in terms:
                products = room[: len(part)]
                pairs(products).copy_(part)
                products = products.flatten(1, 2)
                to_rows[some].flatten(1, 2).baddbmm_(products, columns[some].mT)
                if to is not None:
                    to[some] = rows[some].flatten(1, 2).mT @ products
        return to_q, to_k, *to_columns, None


def _groups(q: Tensor) -> list[slice]:
    """Heads to take at a time: all on a device, on a CPU as many as fit into its cache."""
    heads, B, L, _ = q.shape
    n = heads
    if q.device.type == "cpu":
        n = min(max(_AT_A_TIME // (B * L * 2 * L), 1), heads)
    return [slice(first, first + n) for first in range(0, heads, n)]


def _room(q: Tensor) -> Tensor:
    """For the position products of a group, (heads of it, B, L, 2 L)."""
    _, B, L, _ = q.shape
    return q.new_empty(_groups(q)[0].stop, B, L, 2 * L)
