"""Between two reports a step asks the device for no value: the host never waits for it."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from dcft_cli.training.masks import masks_without_looking
from torch.utils._python_dispatch import TorchDispatchMode

from dcft_cli.training.trainer import AdapterTrainer
from tests.families import FAMILIES, save_base, tiny_model, tokens
from tests.jobs import recipe, train

# What gives the host a value, or a tensor whose size depends on values.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal"}


class Waits(TorchDispatchMode):
    """Counts operations for which the host would wait if tensors were on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def waits(base: Path, folder: Path, steps: int, *more: str) -> Counter[str]:
    """Of a training of so many steps, within one epoch."""
    settings = (
        f"training.max_steps={steps}",
        "training.logging_steps=1000",
        "training.eval_steps=1000",
        "training.batch_size=4",
    )
    loaded = recipe("mrpc", folder, base, *settings, *more, train=100)
    counting = Waits()
    with counting:
        train(loaded, folder / f"run-{steps}")
    return counting.counts


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_do_not_synchronize(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AdapterTrainer, "runs_ahead", True)
    base = save_base(tmp_path / "base", family)
    assert waits(base, tmp_path, 12) == waits(base, tmp_path, 4)


@pytest.mark.parametrize(
    "settings",
    [
        ["training.gradient_accumulation_steps=2"],
        ["training.precision=bfloat16"],
        ["training.group_by_length=false", "adapter.orthogonality_form=squared"],
        ["training.gradient_checkpointing=true"],
    ],
)
def test_no_setting_makes_steps_synchronize(
    settings: list[str], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AdapterTrainer, "runs_ahead", True)
    assert waits(base, tmp_path, 10, *settings) == waits(base, tmp_path, 4, *settings)


def test_every_report_synchronizes(base: Path, tmp_path: Path) -> None:
    """The count above counts."""
    every = "training.logging_steps=1"
    found = waits(base, tmp_path, 8, every) - waits(base, tmp_path, 4, every)
    assert found["_local_scalar_dense"] >= 2 * 4  # loss and norm


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
def test_masks_change_no_result(attention: str, padded: bool) -> None:
    model = tiny_model(attn_implementation=attention)
    batch = tokens()
    if not padded:
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    with torch.no_grad():
        looking = model(**batch).logits
        counting = Waits()
        with masks_without_looking(), counting:
            without = model(**batch).logits
        with counting:
            again = model(**batch).logits
    assert torch.allclose(without, looking, atol=1e-6)
    assert torch.equal(again, looking)
    assert counting.counts == {"_local_scalar_dense": 1}  # of the last one
