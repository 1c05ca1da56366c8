"""`dcft train`: train as planned, keep the best checkpoint, and write the run folder."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback, set_seed

from dcft_cli.acceleration import enable
from dcft_cli.atomic import atomic_path, naming
from dcft_cli.data.writing import write_rows
from dcft_cli.errors import RunError
from dcft_cli.failures import is_out_of_memory
from dcft_cli.methods.method import Method
from dcft_cli.recipe import dump_recipe
from dcft_cli.runs.attach import attach, check_checkpoint, longest_batch
from dcft_cli.runs.batch_size import smaller_batches
from dcft_cli.runs.finished import early_stopping, finished_note
from dcft_cli.runs.folder import RunFolder
from dcft_cli.runs.plan import TrainingPlan
from dcft_cli.runs.prepare import adapter_info, with_absolute_paths
from dcft_cli.runs.presence import Presence
from dcft_cli.runs.results import read_results, write_results
from dcft_cli.runs.resumption import Resumption
from dcft_cli.runs.start import constant_prediction, start
from dcft_cli.training.arguments import training_arguments
from dcft_cli.training.callbacks import ReportingCallback
from dcft_cli.training.checkpoints import step_of
from dcft_cli.training.compiling import compiling
from dcft_cli.training.diagnosis import CONSTANT
from dcft_cli.training.distributed import has_unreached
from dcft_cli.training.machine import free_memory
from dcft_cli.training.reporting import Reporter
from dcft_cli.training.trainer import AdapterTrainer


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes:
        metrics: the content of metrics.json.
        trainer: the trainer, with the trained model; None if a finished run was resumed and
            there was nothing to do.
    """

    folder: RunFolder
    metrics: dict[str, Any] = field(repr=False)
    trainer: AdapterTrainer | None = field(default=None, repr=False)


def train(
    plan: TrainingPlan,
    reporter: Reporter,
    *,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    """Train as planned, from the beginning or from the checkpoint that the plan names.

    With `training.auto_batch_size`, go on in smaller batches if memory runs out.

    Args:
        reporter: gets notes, progress and scores.
        callbacks: further callbacks of the Trainer.

    Raises:
        ModelError: the base's weights cannot be loaded.
        TrainingError: the loss diverges.
        RunError, AdapterFileError: the checkpoint to resume does not fit.
    """
    while True:
        try:
            return _train(plan, reporter, callbacks)
        except Exception as error:
            smaller = smaller_batches(plan) if is_out_of_memory(error) else None
            if smaller is None:
                raise
        free_memory()  # after the exception, which held the model
        before, after = dict(plan.recipe.training), dict(smaller.recipe.training)
        changed = [f"training.{key}={after[key]}" for key in after if after[key] != before[key]]
        reporter.noted(
            f"Out of memory: continuing with {' and '.join(changed)}, for the same steps."
        )
        plan = smaller
        if plan.folder.is_open and (checkpoint := plan.folder.last_checkpoint()):
            plan = replace(plan, resumption=Resumption(checkpoint, ()))


def _train(
    plan: TrainingPlan, reporter: Reporter, callbacks: Sequence[TrainerCallback]
) -> TrainingResult:
    """Train with the batches of the plan; see `train`."""
    recipe, folder = plan.recipe, plan.folder
    checkpoint = plan.resumption.checkpoint if plan.resumption else None
    _check_same_start(checkpoint)
    for note in plan.resumption.notes if plan.resumption else ():
        reporter.noted(note)
    if note := finished_note(plan):
        reporter.noted(note)
    finished = checkpoint if note else None
    if finished and (results := read_results(plan, finished)):
        return TrainingResult(folder, results)
    set_seed(recipe.training.seed)
    base, method, fingerprint = attach(plan, reporter)
    if checkpoint is not None:
        check_checkpoint(checkpoint, method, fingerprint)
    prior, constant_scores = constant_prediction(plan.preparation)
    acceleration = enable(base.model) if _is_accelerated(plan) else []
    stopping = early_stopping(recipe.training, checkpoint)
    callbacks = [*([stopping] if stopping else []), Presence(folder), *callbacks]
    trainer = _trainer(plan, method, fingerprint, reporter, callbacks)
    if plan.machine.is_main:  # after all checks: an earlier run is overwritten from here on
        _open_folder(plan, reporter, checkpoint)
    if checkpoint is None:
        trainer.add_baseline(CONSTANT, constant_scores, write=True)
        start(base, trainer, plan.preparation, plan.machine, prior)
    else:
        for name, scores in {CONSTANT: constant_scores, **folder.baselines()}.items():
            trainer.add_baseline(name, scores, write=False)
    if finished:
        trainer.restore_finished_run(finished)  # the Trainer would take another step
    else:
        compiled = compiling(base.model) if recipe.training.compile else nullcontext()
        with compiled, naming(folder.checkpoints):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    metrics = write_results(plan, trainer, prior, acceleration)
    return TrainingResult(folder, metrics, trainer)


def _check_same_start(checkpoint: Path | None) -> None:
    """Check that all processes have read the same run folder; only then may one write there."""
    names: list[str] = gather_object([checkpoint.name if checkpoint else "none"])
    if len(set(names)) > 1:
        raise RunError(
            f"The processes see different checkpoints: {', '.join(sorted(set(names)))}.",
            "All machines of a run need the same run folder, on a shared file system.",
        )


def _is_accelerated(plan: TrainingPlan) -> bool:
    """Return whether to enable acceleration: not for a compiled, copied or split model."""
    training = plan.recipe.training
    # nn.DataParallel copies the layers at every step, to devices that share one set of hooks.
    one_device = plan.machine.devices == 1
    plain = one_device and not training.compile and not training.shard_base
    return training.acceleration == "auto" and plain


def _trainer(
    plan: TrainingPlan,
    method: Method,
    fingerprint: str,
    reporter: Reporter,
    callbacks: Sequence[TrainerCallback],
) -> AdapterTrainer:
    recipe, preparation = plan.recipe, plan.preparation
    task = preparation.loaded.task
    metric, better = preparation.loaded.main_metric, preparation.loaded.greater_is_better
    args = training_arguments(
        recipe.training,
        plan.machine,
        output=plan.folder.checkpoints,
        steps_per_epoch=plan.steps_per_epoch,
        total_steps=plan.total_steps,
        metric=metric if preparation.evaluation_sets else None,
        greater_is_better=better,
        find_unused=plan.machine.processes > 1
        and has_unreached(method.model, longest_batch(plan, method.model), task.training_loss),
    )
    reporting = ReportingCallback(
        reporter,
        plan.folder.log if plan.machine.is_main else None,
        metric=metric,
        greater_is_better=better,
        tokens_per_step=plan.tokens / plan.steps_per_epoch,
    )
    base = {"name": recipe.model.name, "revision": recipe.model.revision}
    save = partial(
        method.save, base={**base, "fingerprint": fingerprint}, info=adapter_info(recipe)
    )
    return AdapterTrainer(
        method,
        args,
        recipe,
        tokenizer=preparation.tokenizer,
        collator=preparation.collator(args.device),
        train_set=preparation.train_set,
        evaluation_sets=preparation.evaluation_sets,
        save=save,
        loss=task.training_loss,
        identity=plan.identity,
        reporting=reporting,
        callbacks=callbacks,
    )


def _open_folder(plan: TrainingPlan, reporter: Reporter, checkpoint: Path | None) -> None:
    """Prepare the run folder: empty, or as it was at the checkpoint to resume."""
    folder = plan.folder
    folder.is_open = True
    folder.path.mkdir(parents=True, exist_ok=True)
    if checkpoint is not None:
        folder.truncate_log(step_of(checkpoint))
    elif folder.make_room():
        reporter.noted(
            f"The earlier run is kept in {folder.previous.path} until this one has an adapter."
        )
    folder.remove_leftovers()
    recipe = with_absolute_paths(plan.recipe, folder.path)
    with atomic_path(folder.recipe) as path:  # a resumed run is compared with it
        path.write_text(dump_recipe(recipe), encoding="utf-8")
    with naming(folder.path):
        plan.preparation.tokenizer.save_pretrained(folder.path)
    loaded = plan.preparation.loaded
    if loaded.holds_out:
        write_rows(folder.holdout, loaded.validation[""].records)
