"""AdaLoRA: the budget schedule, resuming, and settings that cannot work."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from dcft_cli.errors import RecipeError, TrainingError
from dcft_cli.methods.adalora import AdaLoRA
from dcft_cli.runs.plan import plan_training
from tests.families import save_base, tokens
from tests.jobs import recipe
from tests.methods.attached import attach, logits
from tests.methods.peft_models import batch, model_of, optimizer_of, train

TOTAL = 12
LAYERS = 12


def adalora(total_steps: int | None = TOTAL, **settings: object) -> AdaLoRA:
    """Attach AdaLoRA, by default with ranks from 4 to 2 in the mean, between steps 3 and 8."""
    section = {"rank": 2, "initial_rank": 4, "pruning_start": 3.0, "pruning_end": 8.0, **settings}
    method = attach("adalora", model_of("bert"), total_steps=total_steps, **section)
    assert isinstance(method, AdaLoRA)
    return method


def total_rank(method: AdaLoRA) -> int:
    return sum(method.facts()["ranks"].values())


def test_ranks_shrink_by_the_cubic_schedule_and_stay() -> None:
    method = adalora()
    optimizer = optimizer_of(method.model)
    ranks = []
    for step in range(1, TOTAL + 1):
        train(method, optimizer, step, step)
        ranks.append(total_rank(method))
    start, end = 4 * LAYERS, 2 * LAYERS
    cubic = [int(end + (start - end) * (1 - (step - 3) / 5) ** 3) for step in range(4, 8)]
    assert ranks == [start] * 3 + cubic + [end] * 5
    found = method.facts()
    assert len(set(found["ranks"].values())) > 1  # not the same in every layer
    sizes = {name: m.out_features + m.in_features + 1 for name, m in method.layers.items()}
    assert found["parameters_left"] == sum(found["ranks"][name] * sizes[name] for name in sizes)


def test_what_is_pruned_last_stays_zero_and_merges() -> None:
    method = adalora()
    train(method, last=TOTAL)
    expected, change = logits(method.model), method.weight_change()
    assert change is not None and change > 0
    method.merge()
    assert (logits(method.model) - expected).abs().max() <= 1e-5


def test_pruning_at_intervals() -> None:
    method = adalora(pruning_interval=3)
    optimizer = optimizer_of(method.model)
    ranks = []
    for step in range(1, TOTAL + 1):
        train(method, optimizer, step, step)
        ranks.append(total_rank(method))
    # At 6 for the first time; what was pruned there can come back until ranks are final, at 8.
    assert ranks[:5] == [48] * 5 and ranks[5] < 48
    assert ranks[7:] == [24] * 5


@pytest.mark.parametrize("stop", [2, 5, 8, 10])
def test_resuming_is_exact(stop: int, tmp_path: Path) -> None:
    whole = adalora()
    losses = train(whole, last=TOTAL)

    first = adalora()
    optimizer = optimizer_of(first.model)
    assert train(first, optimizer, 1, stop) == losses[:stop]
    values = {n: p.detach().clone() for n, p in (first.parameters() | first.head()).items()}
    save_file(first.state(), tmp_path / "state")

    second = adalora()
    with torch.no_grad():
        for name, parameter in (second.parameters() | second.head()).items():
            parameter.copy_(values[name])
    second.load_state(load_file(tmp_path / "state"))
    resumed = optimizer_of(second.model)
    resumed.load_state_dict(optimizer.state_dict())
    assert train(second, resumed, stop + 1, TOTAL) == losses[stop:]
    assert second.facts() == whole.facts()
    assert torch.equal(logits(second.model), logits(whole.model))


def test_the_penalty_is_the_mean_of_the_norms() -> None:
    method = adalora(orthogonality=0.3)
    own = {name: p.detach().double() for name, p in method.parameters().items()}
    norms = []
    for name, matrix in own.items():
        if "lora_A" in name:
            norms.append((matrix @ matrix.mT - torch.eye(4).double()).norm())
        if "lora_B" in name:
            norms.append((matrix.mT @ matrix - torch.eye(4).double()).norm())
    assert len(norms) == 2 * LAYERS
    found = method.penalty()
    assert found is not None
    assert found.item() == pytest.approx(0.3 * torch.stack(norms).mean().item(), rel=1e-6)
    assert adalora(orthogonality=0.0).penalty() is None


def test_layers_without_a_gradient_are_pruned_first() -> None:
    method = adalora()
    name = next(iter(method.layers))
    optimizer = optimizer_of(method.model)
    for step in range(1, 9):
        loss = method.model(**batch(step)).loss
        loss.backward()
        for own, parameter in method.parameters().items():
            if own.startswith(f"{name}."):
                parameter.grad = None
        optimizer.step()
        method.after_step(step)
        optimizer.zero_grad()
    ranks = method.facts()["ranks"]
    assert ranks[name] == 0 and sum(ranks.values()) == 24


def skip(method: AdaLoRA, step: int, parameter: torch.nn.Parameter) -> None:
    """What a step in float16 leaves that was skipped since a gradient overflowed."""
    method.model(**batch(step)).loss.backward()
    assert parameter.grad is not None
    parameter.grad.view(-1)[0] = torch.inf
    torch.nn.utils.clip_grad_norm_(method.model.parameters(), 1.0)
    method.after_step(step)
    method.model.zero_grad()


@pytest.mark.parametrize("where", ["parameters", "head"])
def test_a_skipped_step_leaves_importances_as_they_are(where: str) -> None:
    method = adalora()
    optimizer = optimizer_of(method.model)
    train(method, optimizer, 1, 4)
    before = method.state()
    overflown = next(p for p in getattr(method, where)().values() if p.requires_grad)
    skip(method, 5, overflown)
    after = method.state()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    train(method, optimizer, 6, 7)
    skip(method, 8, overflown)  # makes ranks final, by the importances of earlier steps
    assert total_rank(method) == 24
    train(method, optimizer, 9, TOTAL)
    assert total_rank(method) == 24


def test_without_any_finite_gradient_there_is_nothing_to_choose_ranks_by() -> None:
    method = adalora()
    parameter = next(p for p in method.parameters().values() if p.requires_grad)
    for step in range(1, 8):
        skip(method, step, parameter)
    with pytest.raises(TrainingError, match="final at step 8, and no step before it"):
        skip(method, 8, parameter)


def test_what_peft_divides_by_is_saved_and_not_trained() -> None:
    model = model_of("bert").bfloat16()
    method = attach("adalora", model, total_steps=TOTAL, rank=2)
    frozen = {n: p for n, p in method.parameters().items() if not p.requires_grad}
    assert len(frozen) == LAYERS and all("ranknum" in name for name in frozen)
    assert {p.item() for p in frozen.values()} == {3.0}
    assert torch.isfinite(model(**tokens()).logits).all()


@pytest.mark.parametrize(("rank", "initial"), [(1, 2), (2, 3), (3, 4), (8, 12)])
def test_the_initial_rank_is_half_as_high_again(rank: int, initial: int) -> None:
    assert adalora(rank=rank, initial_rank=None).initial_rank == initial


def test_without_training_there_is_no_schedule() -> None:
    assert adalora(total_steps=None).schedule() == (0, 1, 1)


@pytest.mark.parametrize("total", [3, 5, 100])
def test_shares_of_short_runs(total: int) -> None:
    start, end, steps = adalora(total, pruning_start=0.1, pruning_end=0.7).schedule()
    assert 0 <= start < end <= steps == total and end > 1


@pytest.mark.parametrize("total", [1, 2])
def test_runs_too_short_to_know_what_is_important(total: int) -> None:
    with pytest.raises(RecipeError, match=f"from step 0 to step 1, of {total}") as caught:
        adalora(total, pruning_start=0.1, pruning_end=0.7)
    assert "step 2 or later" in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pruning_start": 0.9}, "would prune from step 11 to step 8, of 12"),
        ({"pruning_end": 13.0}, "would prune from step 3 to step 13, of 12"),
    ],
)
def test_schedules_that_do_not_fit_the_steps(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        adalora(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial_rank": 2}, "`initial_rank: 2` is not above `rank: 2`"),
        ({"pruning_start": 8.0}, "`pruning_end: 8.0` is not after `pruning_start: 8.0`"),
        ({"pruning_start": 0.5, "pruning_end": 0.4}, "`pruning_end: 0.4` is not after"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        adalora(**settings)  # type: ignore[arg-type]


def test_a_schedule_that_does_not_fit_shows_before_any_weights_are_loaded(tmp_path: Path) -> None:
    adapter = "{method: adalora, rank: 1, initial_rank: 2, pruning_start: 2, pruning_end: 50}"
    loaded = recipe("rte", tmp_path, save_base(tmp_path / "base"), f"adapter={adapter}")
    with pytest.raises(RecipeError, match="prune from step 2 to step 50, of 6"):
        plan_training(loaded, output=str(tmp_path / "run"))
