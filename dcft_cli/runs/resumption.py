"""Whether a run goes on from a checkpoint, and what may have changed since it was started."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcft_cli.data.row_hash import row_hash
from dcft_cli.errors import RunError
from dcft_cli.recipe import Recipe, TrainingSection, load_recipe
from dcft_cli.recipe.source import show
from dcft_cli.runs.folder import RunFolder
from dcft_cli.tasks import LoadedTask
from dcft_cli.training.checkpoints import find_checkpoint, read_json, step_of
from dcft_cli.training.machine import Machine
from dcft_cli.training.resumable import RUN_STATE

HARMLESS = frozenset(
    {
        # Rows, base weights and rows of a step are compared themselves.
        *("model.name", "model.revision"),
        *("data.hub", "data.config", "data.revision", "data.train", "data.validation"),
        *("data.holdout", "data.format", "data.columns", "data.delimiter", "data.quoting"),
        *("data.text", "data.label", "data.separator"),
        *("training.batch_size", "training.gradient_accumulation_steps"),
        # They change how long a run is, and how often it is looked at.
        *("training.epochs", "training.max_steps", "training.early_stopping_patience"),
        *("training.eval_steps", "training.logging_steps", "training.report_to"),
        # They change where and how the same numbers are computed, and the file that is written.
        *("training.device", "training.precision", "training.num_workers"),
        *("training.eval_batch_size", "training.gradient_checkpointing"),
        *("training.acceleration", "training.compile", "adapter.file_dtype"),
        *("training.auto_batch_size", "training.shard_base", "model.trust_remote_code"),
    }
)
"""Settings that a resumed run may change; docs/recipes.md says what follows from it."""

_BATCHES = ("training.batch_size", "training.gradient_accumulation_steps",
            "training.eval_batch_size")  # fmt: skip
_LEFT_OUT: Any = {"sweep": True, "training": {"output"}}
# The number of steps is compared with those done.
_IDENTITY = {  # title of each value of `run_identity`, and whether it may change
    "train_rows": ("training rows", False),
    "validation_rows": ("validation rows", False),
    "step_rows": ("rows of an optimizer step (batches x accumulation x processes)", False),
    "devices": ("devices", True),
    "precision": ("precision", True),
}
_OTHER = "Choose another --output, or --overwrite to start over."


@dataclass(frozen=True)
class Resumption:
    """The checkpoint that a run goes on from.

    Attributes:
        notes: what has changed since the checkpoint, and what was passed over, for the user.
    """

    checkpoint: Path
    notes: Sequence[str]


def run_identity(
    loaded: LoadedTask, training: TrainingSection, machine: Machine, total_steps: int
) -> dict[str, Any]:
    """Return what a checkpoint remembers of its run beside the recipe; see `_IDENTITY`."""
    assert loaded.train is not None
    validation = [[name, row_hash(rows.dataset)] for name, rows in loaded.validation.items()]
    return {
        "train_rows": row_hash(loaded.train.dataset),
        "validation_rows": validation,
        "step_rows": training.batch_size * training.gradient_accumulation_steps * machine.replicas,
        "total_steps": total_steps,
        "devices": machine.replicas,
        "precision": machine.precision,
    }


def find_resumption(
    folder: RunFolder, given: Recipe, identity: Mapping[str, Any], *, requested: bool
) -> Resumption | None:
    """Return where to go on in a run folder; None to start from the beginning.

    Args:
        given: the recipe, with absolute paths.
        identity: of the planned run, from `run_identity`.
        requested: whether the user asked to resume. If not, a run with the same recipe and rows
            goes on all the same, and one that has saved nothing yet is started over.

    Raises:
        RunError: the run in the folder is another one, or cannot be resumed.
    """
    if not requested and not folder.has_run():
        return None
    checkpoint, problems = find_checkpoint(folder.checkpoints)
    if checkpoint is None:
        results = (folder.adapter, folder.metrics, folder.previous.adapter)
        if not (requested or problems or any(path.exists() for path in results)):
            return None
        raise _nothing_to_resume(folder, problems, requested)
    before = read_json(checkpoint, RUN_STATE).get("identity", {})
    changed, allowed = _changes(folder, before, given, identity)
    planned, done, total = before.get("total_steps"), step_of(checkpoint), identity["total_steps"]
    if total < done:
        changed.append(f"optimizer steps: {done} done -> {total}")
    elif total != planned:
        allowed.append(f"optimizer steps: {planned} -> {total}")
    if changed or (allowed and not requested):
        raise _another_run(folder, [*changed, *allowed], requested, may_resume=not changed)
    notes = [f"{path.name} is passed over: {problem}." for path, problem in problems.items()]
    if not requested and done < total:
        notes.append(f"{folder.path} has a run with the same recipe and rows.")
    notes += [f"Changed since {checkpoint.name}: {change}" for change in allowed]
    if total != planned:
        notes.append("The learning rate follows the new number of steps from here on.")
    return Resumption(checkpoint, notes)


def _changes(
    folder: RunFolder, before: Mapping[str, Any], given: Recipe, identity: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Return the differences that a resumed run may not have, and those that it may.

    Args:
        before, identity: of the run in the folder and of the planned one, from `run_identity`.
    """
    if not folder.recipe.is_file():
        raise RunError(f"{folder.recipe} is missing, so nothing tells what the run is.", _OTHER)
    stored = load_recipe(str(folder.recipe)).recipe
    refused: list[str] = []
    allowed: list[str] = []
    for key, old, new in _differences(stored, given):
        if given.training.auto_batch_size and key in _BATCHES:  # made smaller by this very command
            continue
        (allowed if key in HARMLESS else refused).append(f"{key}: {show(old)} -> {show(new)}")
    for name, (title, harmless) in _IDENTITY.items():
        if (old := before.get(name)) != (new := identity[name]):
            is_hash = name in ("train_rows", "validation_rows")
            change = "changed" if is_hash else f"{old} -> {new}"
            (allowed if harmless else refused).append(f"{title}: {change}")
    return refused, allowed


def _differences(stored: Recipe, given: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """Yield the settings that differ, by dotted key, with both values."""
    before = stored.model_dump(mode="json", exclude=_LEFT_OUT)
    after = given.model_dump(mode="json", exclude=_LEFT_OUT)
    for section in after:
        for key in after[section]:
            old, new = before[section].get(key), after[section][key]
            if old != new:
                yield f"{section}.{key}", old, new


def _nothing_to_resume(
    folder: RunFolder, problems: Mapping[Path, str], requested: bool
) -> RunError:
    lines = [f"{path.name} cannot be resumed: {problem}." for path, problem in problems.items()]
    if requested or problems:
        first = f"{folder.path} has no checkpoint to resume from."
        hint = "Start over without --resume (with --overwrite if the folder is not empty)."
    else:
        first, hint = f"{folder.path} contains a run already.", _OTHER
    return RunError("\n".join([first, *lines]), hint)


def _another_run(
    folder: RunFolder, changes: Sequence[str], requested: bool, *, may_resume: bool
) -> RunError:
    first = f"{folder.path} {'cannot be resumed' if requested else 'contains a run already'}"
    lines = [f"{first}: settings have changed (stored -> given).", *(f"  {c}" for c in changes)]
    hint = f"--resume continues it with these changes. {_OTHER}" if may_resume else _OTHER
    return RunError("\n".join(lines), hint)
