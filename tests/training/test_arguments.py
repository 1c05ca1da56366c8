"""A recipe's training section in the Trainer's terms."""

import os
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from dcft_cli.errors import UserError
from dcft_cli.recipe import ModelSection, TrainingSection
from dcft_cli.training.arguments import (
    device_in_words,
    optimizer_steps,
    training_arguments,
    warmup_steps,
)


def arguments(**settings: object) -> TrainingArguments:
    training = TrainingSection(device="cpu", **settings)
    return training_arguments(
        training,
        ModelSection(name="x"),
        output=Path("out"),
        steps_per_epoch=7,
        total_steps=21,
        metric="f1",
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 3, "batch_size": 10}, (10, 30)),
        ({"epochs": 1.5, "batch_size": 10}, (10, 15)),
        ({"epochs": 0.01, "batch_size": 10}, (10, 1)),
        ({"epochs": 3, "batch_size": 30}, (4, 12)),
        ({"epochs": 3, "batch_size": 30, "gradient_accumulation_steps": 3}, (2, 6)),
        ({"epochs": 3, "batch_size": 10, "max_steps": 4}, (10, 4)),
        ({"epochs": 3, "batch_size": 1000}, (1, 3)),
        ({"batch_size": 10}, (10, 150)),  # small data: 15 epochs
        ({"batch_size": 30}, (4, 152)),
        ({"batch_size": 1}, (100, 300)),
        ({"batch_size": 10, "max_steps": 4}, (10, 4)),
    ],
)
def test_steps(settings: dict, expected: tuple[int, int]) -> None:
    training = TrainingSection(**settings)
    assert optimizer_steps(training, 100, training.batch_size) == expected


def test_steps_on_several_devices() -> None:
    assert optimizer_steps(TrainingSection(epochs=1, batch_size=10), 100, 20) == (5, 5)


@pytest.mark.parametrize(
    ("settings", "per_epoch", "total", "every"),
    [({}, 7, 21, 7), ({}, 10, 150, 15), ({"eval_steps": 2}, 10, 150, 2), ({}, 9, 4, 4)],
)
def test_scored_once_an_epoch_and_ten_times_at_most(
    settings: dict, per_epoch: int, total: int, every: int
) -> None:
    args = training_arguments(
        TrainingSection(device="cpu", **settings),
        ModelSection(name="x"),
        output=Path("out"),
        steps_per_epoch=per_epoch,
        total_steps=total,
        metric="f1",
    )
    assert args.eval_steps == args.save_steps == every


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, 3), ({"warmup_steps": 9}, 9), ({"warmup_ratio": 0.1}, 3), ({"warmup_ratio": 0.0}, 0)],
)
def test_warmup(settings: dict, steps: int) -> None:
    assert warmup_steps(TrainingSection(**settings), 21) == steps
    assert arguments(**settings).warmup_steps == steps


def test_settings_arrive() -> None:
    args = arguments(
        learning_rate=2e-3,
        batch_size=3,
        gradient_accumulation_steps=4,
        scheduler="cosine",
        weight_decay=0.2,
        max_grad_norm=0.5,
        seed=9,
        logging_steps=5,
    )
    assert (args.learning_rate, args.weight_decay, args.max_grad_norm) == (2e-3, 0.2, 0.5)
    assert (args.train_batch_size, args.eval_batch_size) == (3, 6)
    assert args.gradient_accumulation_steps == 4
    assert (args.lr_scheduler_type.value, args.seed, args.logging_steps) == ("cosine", 9, 5)
    assert (args.max_steps, args.report_to, args.disable_tqdm) == (21, [], True)
    assert (args.metric_for_best_model, args.greater_is_better) == ("f1", True)
    assert not (args.bf16 or args.fp16)
    assert not args.logging_nan_inf_filter  # a lost loss must show
    assert args.optim == "adamw_torch_fused"


@pytest.mark.parametrize(("eval_steps", "every"), [(None, 7), (3, 3), (100, 21)])
def test_a_checkpoint_is_saved_whenever_it_is_scored(eval_steps: int | None, every: int) -> None:
    args = arguments(eval_steps=eval_steps)
    assert (args.eval_steps, args.save_steps) == (every, every)
    assert args.load_best_model_at_end
    assert args.save_total_limit == 2


def test_eval_batch_size() -> None:
    assert arguments(batch_size=3, eval_batch_size=5).eval_batch_size == 5


def precision(dtype: str, **settings: object) -> str:
    args = training_arguments(
        TrainingSection(**settings), ModelSection(name="x", dtype=dtype), output=Path("out")
    )
    return {args.bf16: "bfloat16", args.fp16: "float16"}.get(True, "float32")


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_precision_without_cuda(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert precision("float32", device=device) == "float32"
    assert precision("float32", device=device, precision="bfloat16") == "bfloat16"
    assert precision("bfloat16", device=device) == "bfloat16"
    assert precision("bfloat16", device=device, precision="bfloat16") == "bfloat16"
    with pytest.raises(UserError, match=r"precision=float32 does not fit model\.dtype=bfloat16"):
        precision("bfloat16", device=device, precision="float32")
    with pytest.raises(UserError, match=r"training\.precision=float16 needs a CUDA"):
        precision("float32", device=device, precision="float16")


def with_cuda(monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool) -> None:
    """As if there were a CUDA device; the Trainer's own look at it is left out."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    supported = {False: bfloat16, True: True}  # with emulation: everywhere
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: supported[including_emulation],
    )
    monkeypatch.setattr(TrainingArguments, "__post_init__", lambda self: None)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_bfloat16_where_the_device_computes_in_it(
    bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cuda(monkeypatch, bfloat16=bfloat16)
    assert precision("float32") == ("bfloat16" if bfloat16 else "float32")
    assert precision("float32", precision="bfloat16") == "bfloat16"
    assert precision("float32", device="cpu") == "float32"


@pytest.mark.parametrize(
    ("settings", "processors", "processes", "workers"),
    [
        ({}, 16, 1, 2),
        ({}, 2, 1, 1),
        ({}, 1, 1, 0),
        ({}, 8, 8, 0),
        ({"num_workers": 5}, 1, 1, 5),
        ({"num_workers": 0}, 16, 1, 0),
        ({"device": "cpu"}, 16, 1, 0),
        ({"device": "cpu", "num_workers": 1}, 16, 1, 1),
    ],
)
def test_workers_for_a_cuda_device(
    settings: dict,
    processors: int,
    processes: int,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_cuda(monkeypatch, bfloat16=True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    args = training_arguments(
        TrainingSection(**settings), ModelSection(name="x"), output=Path("out")
    )
    assert args.dataloader_num_workers == workers
    pinned = settings.get("device") != "cpu"
    assert args.dataloader_pin_memory == pinned
    assert args.accelerator_config == {"non_blocking": pinned}


def test_without_a_cuda_device_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert arguments().dataloader_num_workers == 0


def test_what_this_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("cuda", "mps"):
        with pytest.raises(UserError, match=f"device={device}, but torch .* no such device"):
            precision("float32", device=device)
    with pytest.raises(UserError, match="no_tracker"):
        precision("float32", device="cpu", report_to=["no_tracker"])


def test_devices_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert device_in_words(torch.device("cpu")) == "CPU, 8 threads"
    assert device_in_words(torch.device("mps")) == "Apple GPU (mps)"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A Large GPU")
    assert device_in_words(torch.device("cuda", 1)) == "A Large GPU (cuda:1)"
