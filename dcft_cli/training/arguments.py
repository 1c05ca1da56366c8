"""The Trainer's arguments for a recipe's training section."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.integrations.integration_utils import get_available_reporting_integrations

from dcft_cli.errors import UserError
from dcft_cli.recipe.schema import TrainingSection
from dcft_cli.training.machine import Machine, refuse_mixed_on_several

# Defaults of settings that depend on one another.
_WARMUP_RATIO = 0.1
_EPOCHS = 3
_MIN_STEPS = 150  # on a few hundred rows, 3 epochs are too few steps to learn anything
_MAX_EVALUATIONS = 10


def optimizer_steps(training: TrainingSection, rows: int, batch_size: int) -> tuple[int, int]:
    """Return the optimizer steps of an epoch and of the run (`max_steps` overrides `epochs`).

    Args:
        rows: encoded training rows.
        batch_size: rows that all devices together take at once.
    """
    batches = math.ceil(rows / batch_size)
    per_epoch = math.ceil(batches / training.gradient_accumulation_steps)
    epochs = training.epochs or max(_EPOCHS, math.ceil(_MIN_STEPS / per_epoch))
    return per_epoch, training.max_steps or max(1, _rounded_up(epochs * per_epoch))


def warmup_steps(training: TrainingSection, total_steps: int) -> int:
    """Return the number of steps over which the learning rate rises."""
    if training.warmup_steps is not None:
        return training.warmup_steps
    ratio = _WARMUP_RATIO if training.warmup_ratio is None else training.warmup_ratio
    return min(_rounded_up(ratio * total_steps), total_steps - 1)  # one step at the full rate


def _rounded_up(steps: float) -> int:
    """Round up, but not for the error of a product: 0.07 x 100 is 7.000000000000001."""
    return math.ceil(round(steps, 6))


def training_arguments(
    training: TrainingSection,
    machine: Machine,
    *,
    output: Path,
    steps_per_epoch: int,
    total_steps: int,
    metric: str | None,
    greater_is_better: bool = True,
    find_unused: bool = False,
) -> TrainingArguments:
    """Return the Trainer's arguments for a training run.

    Args:
        output: folder of the checkpoints.
        steps_per_epoch, total_steps: from `optimizer_steps`.
        metric: score that picks the best checkpoint; None if there is no validation data.
        find_unused: whether several processes look for parameters without a gradient at every
            step, since there are some (which DDP otherwise takes for an error).
    """
    default = max(steps_per_epoch, math.ceil(total_steps / _MAX_EVALUATIONS))
    eval_steps = min(training.eval_steps or default, total_steps)
    evaluation: dict[str, Any] = {}
    if metric is not None:
        evaluation = {
            "eval_strategy": "steps",
            "eval_steps": eval_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": metric,
            "greater_is_better": greater_is_better,
        }
    return _arguments(
        training,
        machine,
        **evaluation,
        output_dir=str(output),
        max_steps=total_steps,
        learning_rate=training.learning_rate,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        lr_scheduler_type=training.scheduler,
        warmup_steps=warmup_steps(training, total_steps),
        # One kernel for all parameters; transformers' own default from torch 2.8 on.
        optim="adamw_torch_fused",
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        logging_steps=training.logging_steps,
        # Replacing a NaN loss by a mean would hide it, and synchronizes with the device each step.
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=eval_steps,
        save_total_limit=2,  # the best and the last
        report_to=training.report_to or "none",
        ddp_find_unused_parameters=find_unused,
    )


def evaluation_arguments(
    training: TrainingSection, machine: Machine, output: Path
) -> TrainingArguments:
    """Return the Trainer's arguments for scoring without training; `output` stays empty.

    Raises:
        UserError: half precision on several devices of one process.
    """
    refuse_mixed_on_several(machine)
    return _arguments(training, machine, output_dir=str(output), report_to="none")


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError for an experiment tracker (`training.report_to`) that is not installed."""
    available = get_available_reporting_integrations()  # type: ignore[no-untyped-call]
    if missing := [name for name in names if name not in available]:
        raise UserError(
            f"training.report_to names {', '.join(missing)}, which is not installed.",
            f"Install it, or choose from: {', '.join(available) or 'none is installed'}.",
        )


def _arguments(training: TrainingSection, machine: Machine, **others: Any) -> TrainingArguments:
    """Return the Trainer's arguments: those that follow from the machine, and the others."""
    pinned = machine.device.type == "cuda"
    args = TrainingArguments(
        per_device_eval_batch_size=training.evaluation_batch_size,
        use_cpu=machine.device.type == "cpu",
        bf16=machine.precision == "bfloat16",
        fp16=machine.precision == "float16",
        dataloader_num_workers=_workers(training, machine),
        # Restart workers each epoch. Persistent ones would draw fewer random numbers than a
        # resumed run does, and the Trainer would use the first validation set for all of them.
        dataloader_persistent_workers=False,
        dataloader_pin_memory=pinned,
        # Only from pinned memory can a batch be copied while the device computes.
        accelerator_config={"non_blocking": pinned},
        disable_tqdm=True,
        **others,
    )
    if machine.precision == "float32":
        # Without bf16 and fp16, transformers takes what accelerate's launcher is set up for.
        args.mixed_precision = "no"
    return args


def _workers(training: TrainingSection, machine: Machine) -> int:
    """Return the number of processes that load batches.

    Collating a batch takes milliseconds of Python. On a CUDA device, whose host is busy launching
    kernels, the device would idle for that time: one worker keeps up with it, a second one covers
    the start of an epoch. On a CPU, workers would take threads from the computation.
    """
    if training.num_workers != "auto":
        return training.num_workers
    if machine.device.type != "cuda":
        return 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of torchrun
    return min(2, max((os.cpu_count() or 1) // processes - 1, 0))
