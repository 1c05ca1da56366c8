"""DeBERTa's disentangled attention in fewer operations than transformers needs.

To the scores of queries and keys DeBERTa (arXiv 2006.03654, Eq. 4) adds two terms of the distance
i - j of their positions: Q_i . K^r and K_j . Q^r, where K^r and Q^r are projections of a table of
relative positions. transformers projects the whole table (512 rows) in every layer, copies it for
every text of the batch, multiplies by all of it and gathers what each pair needs. Here only the
2 L - 1 distances of a batch of length L are projected, once for all texts. Pairs of one distance
then lie on a diagonal of the products, (L, 2 L), and a shifted view of them is the matrix of pairs:

    (Q K^r^T)[i, L - 1 - (i - j)] is element i (2 L - 1) + j + (L - 1) of its matrix,
    (K Q^r^T)[j, L - 1 + (i - j)] is element j (2 L - 1) + i + (L - 1).

The numbers are the same up to rounding; with attention dropout, a seed drops other entries.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention


def applies_to(module: nn.Module) -> bool:
    """Return whether `AttentionByDistance` can take the place of a module: DeBERTa v2 and v3."""
    return type(module) is DisentangledSelfAttention and module.relative_attention


class AttentionByDistance(DisentangledSelfAttention):
    """Attention with scores by distance, with the parameters of the module it replaces."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute as transformers does: hidden_states (B, L, hidden), attention_mask (B, 1, L, L).

        relative_pos (1, L, L) must be a function of i - j, as the encoder makes it.
        """
        if query_states is not None or relative_pos is None or relative_pos.shape[:-2] != (1,):
            # Not called by a DeBERTa encoder, which passes the same positions to every layer.
            own: Any = super().forward
            result: tuple[Tensor, Tensor | None] = own(
                hidden_states, attention_mask, output_attentions,
                query_states, relative_pos, rel_embeddings,
            )  # fmt: skip
            return result
        B, L, _ = hidden_states.shape
        terms = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        # Before the products, which may overflow float16; each of them has one scaled factor.
        scale = (self.attention_head_size * terms) ** -0.5
        q = self._heads(self.query_proj(hidden_states) * scale)
        k = self._heads(self.key_proj(hidden_states))
        v = self._heads(self.value_proj(hidden_states))
        pos_keys, pos_queries = self._positions(relative_pos, self.pos_dropout(rel_embeddings))
        if pos_queries is not None:
            pos_queries = pos_queries * scale
        scores = disentangled_scores(q, k, pos_keys, pos_queries, ~attention_mask.bool()[:, 0])
        probabilities = self.dropout(softmax(scores, dim=-1))  # (heads, B, L, L)
        context = torch.bmm(probabilities.flatten(0, 1), v.flatten(0, 1)).view(v.shape)
        context = context.permute(1, 2, 0, 3).reshape(B, L, self.all_head_size)
        return context, probabilities.transpose(0, 1) if output_attentions else None

    def _heads(self, x: Tensor) -> Tensor:
        """Reshape (B, L, hidden) to (heads, B, L, head size): positions do not depend on texts."""
        parts = x.view(*x.shape[:-1], self.num_attention_heads, self.attention_head_size)
        return parts.permute(2, 0, 1, 3).contiguous()

    def _positions(
        self, relative_pos: Tensor, table: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return K^r and Q^r by distance, (heads, 1, head size, 2 L); None where there is none.

        Adapters that differ from text to text give every text its own: (heads, B, head size, 2 L).

        Columns of K^r: distances from L - 1 down to 1 - L; of Q^r the reverse. Both end in one
        that is never read, which makes the rows of the products even.
        """
        first, last = relative_pos[0, 0], relative_pos[0, -1]
        distances = torch.cat([last, first[1:], first[-1:]])
        pos_keys = pos_queries = None
        if "c2p" in self.pos_att_type:
            project = self.key_proj if self.share_att_key else self.pos_key_proj
            pos_keys = self._projected(project, table, distances)
        if "p2c" in self.pos_att_type:
            project = self.query_proj if self.share_att_key else self.pos_query_proj
            pos_queries = self._projected(project, table, -distances)
        return pos_keys, pos_queries

    def _projected(self, project: nn.Module, table: Tensor, distances: Tensor) -> Tensor:
        """Project the table's rows for these distances: (heads, 1 or B, head size, distances)."""
        span = self.pos_ebd_size
        rows_of_table = torch.clamp(distances + span, 0, 2 * span - 1)
        if len(rows_of_table) < 2 * span:
            rows: Tensor = project(table[None, rows_of_table])
        else:
            rows = project(table[None, : 2 * span])[:, rows_of_table]
        return rows.view(*rows.shape[:2], self.num_attention_heads, -1).permute(2, 0, 3, 1)


def by_key(products: Tensor) -> Tensor:
    """Return pairs[i, j] = products[i, L - 1 - (i - j)], (..., L, L) from (..., L, 2 L)."""
    L, W = products.shape[-2:]
    shifted = products.flatten(-2)[..., L - 1 : -1]
    return shifted.view(*shifted.shape[:-1], L, W - 1)[..., :L]


def disentangled_scores(
    q: Tensor, k: Tensor, pos_keys: Tensor | None, pos_queries: Tensor | None, masked: Tensor
) -> Tensor:
    """Compute the scores of all pairs, masked ones at the lowest value of their type.

    Args:
        q, k: (heads, B, L, head size), q scaled.
        pos_keys, pos_queries: K^r, and Q^r scaled, (heads, 1 or B, head size, 2 L), or None.
        masked: (B, L, L), True where a query may not see a key.

    Returns:
        (heads, B, L, L).
    """
    scores = q @ k.mT
    if pos_keys is not None:
        scores = scores + by_key(_products(q, pos_keys))
    if pos_queries is not None:
        scores = scores + by_key(_products(k, pos_queries)).mT
    return scores.masked_fill(masked, torch.finfo(scores.dtype).min)


def _products(tokens: Tensor, positions: Tensor) -> Tensor:
    """Multiply (heads, B, L, head size) by (heads, 1 or B, head size, 2 L), without copies of 1."""
    if positions.shape[1] > 1:
        return tokens @ positions
    return (tokens.flatten(1, 2) @ positions[:, 0]).view(*tokens.shape[:3], -1)
