"""Between two reports a training step reads no value from the device, which the host waits for."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from tests.families import save_base, tiny_model, tokens
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


def per_step(base: Path, folder: Path, *more: str) -> dict[str, float]:
    few, many = (waits(base, folder, steps, *more) for steps in (4, 12))
    return {name: (many[name] - few[name]) / 8 for name in many if many[name] != few[name]}


@pytest.fixture(scope="module")
def plain(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Waits of a step with the default settings."""
    return per_step(base, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta-v2"])
def test_steps_add_no_wait_to_those_of_transformers(family: str, tmp_path: Path) -> None:
    """A forward pass of transformers looks for padding in the attention mask."""
    base = save_base(tmp_path / "base", family)
    with Waits() as counting:
        tiny_model(family)(**tokens())
    assert per_step(base, tmp_path) == dict(counting.counts)


@pytest.mark.parametrize(
    "settings",
    [
        ["training.precision=bfloat16"],
        ["training.group_by_length=false", "adapter.orthogonality_form=squared"],
        ["training.gradient_checkpointing=true"],
    ],
)
def test_no_setting_adds_a_wait(
    settings: list[str], plain: dict[str, float], base: Path, tmp_path: Path
) -> None:
    assert per_step(base, tmp_path, *settings) == plain
