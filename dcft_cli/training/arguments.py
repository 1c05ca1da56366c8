"""A recipe's training section in the Trainer's terms."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import get_available_reporting_integrations

from dcft_cli.errors import UserError
from dcft_cli.recipe.schema import ModelSection, TrainingSection

# Where the recipe says nothing else.
_WARMUP_RATIO = 0.1
_EPOCHS = 3
_STEPS = 150  # at least: a few hundred rows make so few steps an epoch that nothing is learned in 3
_EVALUATIONS = 10  # at most


def optimizer_steps(training: TrainingSection, examples: int, batch_size: int) -> tuple[int, int]:
    """Optimizer steps of one epoch, and of the whole run (`max_steps` goes before `epochs`).

    Args:
        batch_size: examples that all devices together take at once.
    """
    batches = math.ceil(examples / batch_size)
    per_epoch = math.ceil(batches / training.gradient_accumulation_steps)
    epochs = training.epochs or max(_EPOCHS, math.ceil(_STEPS / per_epoch))
    return per_epoch, training.max_steps or math.ceil(epochs * per_epoch)


def training_arguments(
    training: TrainingSection,
    model: ModelSection,
    *,
    output: Path,
    steps_per_epoch: int = 1,
    total_steps: int = 1,
    metric: str | None = None,
    greater_is_better: bool = True,
) -> TrainingArguments:
    """The Trainer's settings for a run.

    Args:
        output: folder of the checkpoints.
        steps_per_epoch, total_steps: from `optimizer_steps`.
        metric: score that picks the best checkpoint; None where nothing is scored in training.
        greater_is_better: whether a higher one is better.

    Raises:
        UserError: a device or precision that this machine does not have.
    """
    _check_device(training.device)
    _check_trackers(training.report_to)
    precision = _precision(training, model)
    pinned = torch.cuda.is_available() and training.device != "cpu"
    usual = max(steps_per_epoch, math.ceil(total_steps / _EVALUATIONS))
    eval_steps = min(training.eval_steps or usual, total_steps)
    scoring: dict[str, Any] = {}
    if metric is not None:
        scoring = {
            "eval_strategy": "steps",
            "eval_steps": eval_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": metric,
            "greater_is_better": greater_is_better,
        }
    return TrainingArguments(
        output_dir=str(output),
        max_steps=total_steps,
        learning_rate=training.learning_rate,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.eval_batch_size or 2 * training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        lr_scheduler_type=training.scheduler,
        warmup_steps=warmup_steps(training, total_steps),
        # One kernel for all factors; what transformers itself takes from torch 2.8 on.
        optim="adamw_torch_fused",
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        use_cpu=_on_cpu(training.device),
        dataloader_num_workers=_workers(training),
        # Workers begin anew with each epoch. Persistent ones would draw fewer random numbers than
        # a resumed run does, and the Trainer would take the first validation set for every one.
        dataloader_persistent_workers=False,
        dataloader_pin_memory=pinned,
        # From pinned memory a batch is copied while the device computes; else the host waits.
        accelerator_config={"non_blocking": pinned},
        logging_steps=training.logging_steps,
        # Replacing a lost loss by a mean would hide it, and asks the device at every step.
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=eval_steps,
        save_total_limit=2,  # the best and the last
        report_to=training.report_to or "none",
        disable_tqdm=True,
        # No DDP search for unused parameters: every adapter is part of every forward pass.
        ddp_find_unused_parameters=False,
        **scoring,
    )


def warmup_steps(training: TrainingSection, total_steps: int) -> int:
    """Steps over which the learning rate rises."""
    if training.warmup_steps is not None:
        return training.warmup_steps
    ratio = _WARMUP_RATIO if training.warmup_ratio is None else training.warmup_ratio
    return min(math.ceil(ratio * total_steps), total_steps - 1)  # one step at its full rate


def device_in_words(device: torch.device) -> str:
    """The device for a reader: "NVIDIA H200 (cuda:0)" or "CPU, 8 threads"."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    if device.type == "mps":
        return "Apple GPU (mps)"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}"


def _precision(training: TrainingSection, model: ModelSection) -> str:
    cuda = training.device in ("auto", "cuda") and torch.cuda.is_available()
    if training.precision == "float16" and not cuda:
        raise UserError(
            "training.precision=float16 needs a CUDA device.", "Use float32 or bfloat16."
        )
    if model.dtype != "float32":
        # A half-precision base is computed in its own type; the adapter's float32 is cast.
        if training.precision not in ("auto", model.dtype):
            raise UserError(
                f"training.precision={training.precision} does not fit model.dtype={model.dtype}.",
                f"Set training.precision={model.dtype} or auto.",
            )
        return model.dtype
    if training.precision == "auto":
        # Older devices emulate it, and lose more time than they gain.
        there = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if there else "float32"
    return training.precision


def _workers(training: TrainingSection) -> int:
    """Processes that load batches.

    Making a batch takes milliseconds of Python. On a CUDA device, where the host is busy with
    starting kernels, that is time without work for the device: one process keeps up with it, the
    second covers the beginning of an epoch. On a CPU they would take threads from the computation.
    """
    if training.num_workers != "auto":
        return training.num_workers
    if training.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return 0
    # Python before 3.13 knows the machine's processors, not those that we may use.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of torchrun
    return min(2, max((usable or 1) // processes - 1, 0))


def _check_trackers(names: Sequence[str]) -> None:
    there = get_available_reporting_integrations()  # type: ignore[no-untyped-call]
    if missing := [name for name in names if name not in there]:
        raise UserError(
            f"training.report_to names {', '.join(missing)}, which is not installed here.",
            f"Install it, or choose from: {', '.join(there) or 'none is installed'}.",
        )


def _on_cpu(device: str) -> bool:
    """Whether "auto" means the CPU, too; the Trainer allows bfloat16 there only if told so."""
    others = torch.cuda.is_available() or torch.backends.mps.is_available()
    return device == "cpu" or (device == "auto" and not others)


def _check_device(device: str) -> None:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, True):
        raise UserError(
            f"training.device={device}, but torch {torch.__version__} finds no such device.",
            "Set training.device=auto, or install a torch build for your device.",
        )
