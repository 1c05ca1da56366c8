"""Which adapters a forward pass uses: one for the whole batch, or one for each of its rows."""

from collections.abc import Hashable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from dcft_cli.adapter.functional import low_rank_factors
from dcft_cli.serving.held import HeldAdapter
from dcft_cli.serving.layout import Block, Layout

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Group:
    """Adapters of one layout, and the rows of the batch that use them.

    Attributes:
        rows: numbers of the rows, in the order of `vectors`; None: all.
        vectors: (n, size), one adapter for each row; n = 1 for the whole batch.
    """

    layout: Layout
    vectors: Tensor
    rows: Tensor | None

    def low_rank_factors(self, block: Block) -> tuple[Tensor, Tensor]:
        """Return A' (n, k d, in) and B' (n, out, k d)."""
        return low_rank_factors(*block.factors(self.vectors), **block.shape_and_scale)


@dataclass(frozen=True)
class Selection:
    """The adapters of a forward pass.

    Attributes:
        size: number of rows of the batch; None: one adapter for all of them, however many.
        groups: the adapters by layout.
        rows: of each distinct adapter.
    """

    size: int | None
    groups: Sequence[Group]
    rows: Sequence[tuple[HeldAdapter, Tensor]]


# A pass of one thread does not see what another selects.
selected: ContextVar[Selection | None] = ContextVar("selected", default=None)


def select_one(adapter: HeldAdapter) -> Selection:
    """Select an adapter for a whole batch."""
    group = Group(adapter.layout, adapter.factors.unsqueeze(0), None)
    return Selection(None, [group], [(adapter, torch.empty(0))])


def select_by_row(adapters: Sequence[HeldAdapter]) -> Selection:
    """Select an adapter for each row of a batch."""
    device = adapters[0].factors.device
    by_layout = positions([adapter.layout for adapter in adapters])
    groups = [
        Group(
            layout,
            torch.stack([adapters[row].factors for row in rows]),
            None if len(by_layout) == 1 else torch.tensor(rows, device=device),
        )
        for layout, rows in by_layout.items()
    ]
    rows_of = {a: torch.tensor(rows, device=device) for a, rows in positions(adapters).items()}
    return Selection(len(adapters), groups, list(rows_of.items()))


def positions(values: Sequence[T]) -> dict[T, list[int]]:
    """Return where each distinct value is."""
    found: dict[T, list[int]] = {}
    for position, value in enumerate(values):
        found.setdefault(value, []).append(position)
    return found


def join_rows(size: int, parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return (size, ..., widest) from parts (n, ..., width) and the rows that they hold.

    Narrower parts end in minus infinity: to softmax, sigmoid and argmax it is no class.
    """
    width = max(part.shape[-1] for _, part in parts)
    first = parts[0][1]
    joined = first.new_full((size, *first.shape[1:-1], width), -torch.inf)
    for rows, part in parts:
        joined[rows, ..., : part.shape[-1]] = part
    return joined
