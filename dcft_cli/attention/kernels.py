"""The layer around disentangled-flash's kernels; imported only where that package is asked for."""

from typing import Any

from disentangled_flash import TritonTrainingDisentangledSelfAttention
from torch import Tensor
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention


class FusedAttention(TritonTrainingDisentangledSelfAttention):  # type: ignore[misc]
    """The kernels between projections that may carry adapters."""

    replaces = DisentangledSelfAttention

    def _project_qkv(self, hidden_states: Tensor) -> tuple[Tensor, ...]:
        # The package puts the three weights into one and would pass the adapters by.
        projections = (self.query_proj, self.key_proj, self.value_proj)
        return tuple(project(hidden_states) for project in projections)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """As transformers' own; positions are those of the length, masks those of padding."""
        # DeBERTa's mask is of pairs, (B, 1, L, L): a token that sees itself is no padding.
        tokens = attention_mask.expand(-1, -1, attention_mask.shape[-1], -1)
        tokens = tokens.diagonal(dim1=-2, dim2=-1)[:, 0]
        compute: Any = super()
        if not hidden_states.is_cuda:  # the package's PyTorch form, which its kernels extend
            compute = super(TritonTrainingDisentangledSelfAttention, self)
        result: tuple[Tensor, None] = compute.forward(
            hidden_states, tokens, output_attentions, query_states, rel_embeddings=rel_embeddings
        )
        return result
