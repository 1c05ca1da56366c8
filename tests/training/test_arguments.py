"""The Trainer's arguments for a recipe's training section."""

import os
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from dcft_cli.errors import UserError
from dcft_cli.recipe import TrainingSection
from dcft_cli.training.arguments import (
    check_trackers,
    evaluation_arguments,
    optimizer_steps,
    training_arguments,
    warmup_steps,
)
from dcft_cli.training.machine import Machine

CPU = Machine(torch.device("cpu"), 1, 1, True, "float32")
CUDA = Machine(torch.device("cuda:0"), 1, 1, True, "bfloat16")


def arguments(
    machine: Machine = CPU, per_epoch: int = 7, total: int = 21, **settings: object
) -> TrainingArguments:
    return training_arguments(
        TrainingSection(**settings),
        machine,
        output=Path("out"),
        steps_per_epoch=per_epoch,
        total_steps=total,
        metric="f1",
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 3, "batch_size": 10}, (10, 30)),
        ({"epochs": 1.5, "batch_size": 10}, (10, 15)),
        ({"epochs": 0.01, "batch_size": 10}, (10, 1)),
        ({"epochs": 1e-9, "batch_size": 10}, (10, 1)),
        ({"epochs": 0.07, "batch_size": 1}, (100, 7)),
        ({"epochs": 0.071, "batch_size": 1}, (100, 8)),
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
def test_optimizer_steps(settings: dict, expected: tuple[int, int]) -> None:
    training = TrainingSection(**settings)
    assert optimizer_steps(training, 100, training.batch_size) == expected


def test_optimizer_steps_on_several_devices() -> None:
    assert optimizer_steps(TrainingSection(epochs=1, batch_size=10), 100, 20) == (5, 5)


@pytest.mark.parametrize(
    ("eval_steps", "per_epoch", "total", "expected"),
    [
        (None, 7, 21, 7),
        (None, 10, 150, 15),
        (2, 10, 150, 2),
        (None, 9, 4, 4),
        (3, 7, 21, 3),
        (100, 7, 21, 21),
    ],
)
def test_evaluations_are_per_epoch_and_at_most_ten_and_each_saves_a_checkpoint(
    eval_steps: int | None, per_epoch: int, total: int, expected: int
) -> None:
    args = arguments(per_epoch=per_epoch, total=total, eval_steps=eval_steps)
    assert args.eval_steps == args.save_steps == expected
    assert args.load_best_model_at_end
    assert args.save_total_limit == 2


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, 3), ({"warmup_steps": 9}, 9), ({"warmup_ratio": 0.1}, 3), ({"warmup_ratio": 0.0}, 0)],
)
def test_warmup(settings: dict, steps: int) -> None:
    assert warmup_steps(TrainingSection(**settings), 21) == steps
    assert arguments(**settings).warmup_steps == steps
    assert warmup_steps(TrainingSection(warmup_ratio=0.07), 100) == 7  # not 7.000000000000001


def test_settings_reach_the_trainer() -> None:
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
    assert not args.logging_nan_inf_filter  # a NaN loss must show
    assert args.optim == "adamw_torch_fused"
    assert arguments(batch_size=3, eval_batch_size=5).eval_batch_size == 5


def test_evaluation_arguments() -> None:
    training = TrainingSection(eval_batch_size=5, report_to=["wandb"])
    args = evaluation_arguments(training, CPU, Path("out"))
    assert (args.eval_batch_size, args.device.type, args.report_to) == (5, "cpu", [])


@pytest.mark.parametrize("launcher", ["no", "bf16", "fp16"])
@pytest.mark.parametrize(("precision", "expected"), [("float32", "no"), ("bfloat16", "bf16")])
def test_the_recipe_decides_on_the_precision_and_not_the_launcher(
    launcher: str, precision: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    machine = Machine(torch.device("cpu"), 1, 1, True, precision)
    assert arguments(machine).mixed_precision == expected
    evaluation = evaluation_arguments(TrainingSection(), machine, Path("out"))
    assert evaluation.mixed_precision == expected


@pytest.mark.parametrize(
    ("machine", "num_workers", "processors", "expected"),
    [
        (CUDA, "auto", 16, 2),
        (CUDA, "auto", 2, 1),
        (CUDA, "auto", 1, 0),
        (CUDA, 5, 1, 5),
        (CUDA, 0, 16, 0),
        (CPU, "auto", 16, 0),
        (CPU, 1, 16, 1),
    ],
)
def test_workers_and_pinned_memory_are_for_cuda_devices(
    machine: Machine,
    num_workers: int | str,
    processors: int,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TrainingArguments, "__post_init__", lambda self: None)
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    args = arguments(machine, num_workers=num_workers)
    assert args.dataloader_num_workers == expected
    assert args.dataloader_pin_memory == (machine is CUDA)
    assert args.accelerator_config == {"non_blocking": machine is CUDA}
    assert (args.use_cpu, args.bf16) == (machine is CPU, machine is CUDA)


def test_a_missing_tracker_is_an_error() -> None:
    check_trackers([])
    with pytest.raises(UserError, match="no_tracker"):
        check_trackers(["no_tracker"])
