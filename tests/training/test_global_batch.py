"""The batch of a step, dealt to processes: every row once, one mean over all of them."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dcft_cli.training.global_batch import (
    loss_terms,
    pop_weight,
    remove_repeated_rows,
    row_count,
    weight_losses,
    weighted,
)


def shares(rows: int, share: int, processes: int) -> list[dict[str, Tensor]]:
    """Return the last batch of every process, filled up with rows of the epoch's start."""
    last = rows % (share * processes) or share * processes
    numbers = [*range(rows - last, rows), *(list(range(rows)) * share * processes)]
    return [
        {"labels": torch.tensor(numbers[process * share : (process + 1) * share]).float()}
        for process in range(processes)
    ]


@given(rows=st.integers(1, 40), share=st.integers(1, 5), processes=st.integers(1, 4))
def test_every_row_counts_once(rows: int, share: int, processes: int) -> None:
    batches = shares(rows, share, processes)
    last = rows % (share * processes) or share * processes
    found, losses, total = [], [], 0
    counts = [remove_repeated_rows(b, rows, n, processes) for n, b in enumerate(batches)]
    for batch, counted in zip(batches, counts, strict=True):
        assert row_count(batch) >= 1
        found += batch["labels"].tolist() if counted else []
        total += row_count(batch) if counted else 0
    assert found == list(range(rows - last, rows))
    for batch, counted in zip(batches, counts, strict=True):
        weight_losses([batch], lambda _: torch.tensor(total), processes, last_counts=counted)
        weight = pop_weight(batch)
        assert weight is not None and list(batch) == ["labels"]
        losses.append(weighted(batch["labels"].mean(), weight))
    # DDP averages the gradients, and so the losses, of the processes.
    expected = torch.arange(rows - last, rows).float().mean()
    torch.testing.assert_close(torch.stack(losses).mean(), expected)


def test_accumulated_batches_count_by_their_labeled_tokens() -> None:
    labels = [torch.tensor([[1, -100], [0, 1]]), torch.tensor([[-100, 2]])]
    batches = [{"labels": one} for one in labels]
    weight_losses(batches, lambda count: count, 1, last_counts=True)
    # The Trainer divides every loss by their number.
    assert [float(batch["loss_weight"]) / 2 for batch in batches] == [0.75, 0.25]


def test_a_single_batch_keeps_its_loss_bit_by_bit() -> None:
    batch = {"labels": torch.arange(7)}
    weight_losses([batch], lambda count: count, 1, last_counts=True)
    loss = torch.rand(())
    weight = pop_weight(batch)
    assert weight is not None and torch.equal(weighted(loss, weight), loss)


def test_a_batch_without_labeled_tokens_has_no_loss() -> None:
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    labels = torch.full((1, 2), -100)
    loss = torch.nn.functional.cross_entropy(logits.view(-1, 3), labels.view(-1))
    assert loss.isnan()
    kept = weighted(loss, torch.tensor(0.0))
    kept.backward()
    assert kept.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_terms_of_a_loss() -> None:
    assert int(loss_terms({"labels": torch.tensor([-100.0, 2.0])})) == 2  # numbers, not classes
    assert int(loss_terms({"labels": torch.tensor([[0, -100], [1, 1]])})) == 3
    assert int(loss_terms({"start_positions": torch.tensor([4, 5, 6])})) == 3
