"""What `dcft train` will do, determined without loading weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dcft_cli.addresses import local_path
from dcft_cli.errors import RecipeError, UserError
from dcft_cli.models.loading import head_dropouts, skeleton
from dcft_cli.outputs import check_folder, refuse_address
from dcft_cli.recipe import LoadedRecipe, Recipe
from dcft_cli.recipe.methods import METHODS
from dcft_cli.runs.adapter_plan import AdapterPlan, plan_adapter
from dcft_cli.runs.folder import RunFolder
from dcft_cli.runs.prepare import Preparation, prepare, with_absolute_paths
from dcft_cli.runs.resumption import Resumption, find_resumption, run_identity
from dcft_cli.training.arguments import check_trackers, optimizer_steps, warmup_steps
from dcft_cli.training.machine import Machine, find_machine, refuse_mixed_on_several


@dataclass(frozen=True)
class TrainingPlan:
    """A training run, checked.

    Attributes:
        folder: where the run writes.
        steps_per_epoch, total_steps: optimizer steps.
        tokens: input tokens of the training set, without padding.
        identity: what checkpoints remember of the run, from `run_identity`.
        resumption: where the run goes on; None: it starts from the beginning.
    """

    preparation: Preparation
    adapter: AdapterPlan
    machine: Machine
    folder: RunFolder
    steps_per_epoch: int
    total_steps: int
    tokens: int
    identity: Mapping[str, Any]
    resumption: Resumption | None

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return self.preparation.recipe

    @property
    def train_rows(self) -> int:
        """Number of encoded training rows (for question answering: windows)."""
        assert self.preparation.train_set is not None
        return len(self.preparation.train_set)

    @property
    def batch_size(self) -> int:
        """Rows of one optimizer step, on all devices together."""
        return int(self.identity["step_rows"])

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps over which the learning rate rises."""
        return warmup_steps(self.recipe.training, self.total_steps)


def run_folder(loaded: LoadedRecipe, output: str | None) -> RunFolder:
    """Return the folder to train into: `output`, else the recipe's own, else runs/NAME.

    Raises:
        UserError: it is an address.
    """
    named = output or loaded.recipe.training.output or f"runs/{loaded.name}"
    refuse_address(named, "folder")
    return RunFolder(local_path(named))


def plan_training(
    loaded: LoadedRecipe,
    *,
    output: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> TrainingPlan:
    """Check recipe, data, model configuration, device and output folder.

    Args:
        output: run folder; overrides the recipe's own and the default, runs/NAME.
        overwrite: whether an earlier run in the folder may be replaced.
        resume: whether to continue from the folder's last checkpoint, though settings may have
            changed. An unfinished run with the same recipe and rows goes on in any case.

    Raises:
        UserError: something is missing or does not fit.
    """
    if overwrite and resume:
        raise UserError("--overwrite starts over, --resume goes on.", "Give one of them.")
    training = loaded.recipe.training
    folder = run_folder(loaded, output)
    check_folder(folder.path)
    machine = find_machine(training, loaded.recipe.model)
    check_trackers(training.report_to)
    _check_machine(loaded.recipe, machine)
    _check_trained_type(loaded.recipe)
    preparation = prepare(loaded.recipe)
    _check_support(preparation)
    recipe = preparation.recipe
    assert preparation.train_set is not None
    steps_per_epoch, total_steps = optimizer_steps(
        training, len(preparation.train_set), training.batch_size * machine.replicas
    )
    identity = run_identity(preparation.loaded, training, machine, total_steps)
    resumption = None
    if not overwrite:
        given = with_absolute_paths(recipe, folder.path)
        resumption = find_resumption(folder, given, identity, requested=resume)
    return TrainingPlan(
        preparation=preparation,
        adapter=plan_adapter(
            recipe.adapter,
            preparation.config,
            preparation.auto_class,
            dense=recipe.head.dense,
            total_steps=total_steps,
        ),
        machine=machine,
        folder=folder,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        tokens=sum(preparation.train_set["length"][:]),
        identity=identity,
        resumption=resumption,
    )


def with_training(plan: TrainingPlan, **settings: object) -> TrainingPlan:
    """Return a plan with other training settings that change none of its steps."""
    training = plan.recipe.training.model_copy(update=settings)
    recipe = plan.recipe.model_copy(update={"training": training})
    return replace(plan, preparation=replace(plan.preparation, recipe=recipe))


def _check_machine(recipe: Recipe, machine: Machine) -> None:
    """Raise UserError if a setting does not fit the number of processes and devices."""
    if recipe.training.compile and machine.devices > 1:
        raise UserError(
            "training.compile=true works with one device per process, and "
            f"{machine.devices} are visible.",
            "Start with torchrun, name one device (CUDA_VISIBLE_DEVICES=0), or train without: "
            "training.compile=false.",
        )
    refuse_mixed_on_several(machine)
    if recipe.training.auto_batch_size and machine.processes > 1:
        raise UserError(
            "training.auto_batch_size works in one process: the others would wait for the one that "
            "runs out of memory.",
            "Set training.auto_batch_size=false, and training.batch_size so that a batch fits.",
        )
    if recipe.training.shard_base:
        _check_sharding(recipe, machine)


def _check_sharding(recipe: Recipe, machine: Machine) -> None:
    """Raise UserError if `training.shard_base` does not fit the processes or other settings."""
    if machine.processes == 1:
        raise UserError(
            "training.shard_base splits the base model among several processes, and there is one.",
            "Start them: dcft train RECIPE --devices N.",
        )
    method = recipe.adapter.method
    if not METHODS[method].fits_sharded:
        use = "trains" if METHODS[method].trains_base else "starts from whole"
        raise RecipeError(
            f"adapter.method={method} {use} weights of the base model, which "
            "training.shard_base splits.",
            "Train without training.shard_base, or choose another method, such as dcft or lora.",
        )
    needs = {
        "adapter.init": "zero" if method == "dcft" else recipe.adapter.init,
        "model.quantization": None,
        "training.compile": False,
    }
    for key, needed in needs.items():
        section, name = key.split(".")
        if (found := getattr(getattr(recipe, section), name)) != needed:
            setting = "null" if needed is None else str(needed).lower()
            raise RecipeError(
                f"training.shard_base does not work with {key}={str(found).lower()}.",
                f"Set {key}={setting}, or train without training.shard_base.",
            )


def _check_trained_type(recipe: Recipe) -> None:
    """Raise RecipeError if a method would train weights of the base in a type that cannot be."""
    method, model = recipe.adapter.method, recipe.model
    if not METHODS[method].trains_base:
        return
    if model.dtype != "float32":
        raise RecipeError(
            f"adapter.method={method} trains weights of the base model, and model.dtype="
            f"{model.dtype} would round away their small updates.",
            f"Leave model.dtype out; training.precision={model.dtype} computes in half precision "
            "and keeps float32 weights.",
        )
    if method == "full" and model.quantization:
        raise RecipeError(
            "adapter.method=full trains every weight of the base model, and model.quantization="
            f"{model.quantization} packs them as integers.",
            "Leave model.quantization out, or choose another method, such as dcft or lora.",
        )


def _check_support(preparation: Preparation) -> None:
    """Raise RecipeError if a setting needs data that is not there, or another model."""
    training, config = preparation.recipe.training, preparation.config
    if training.early_stopping_patience and not preparation.evaluation_sets:
        raise RecipeError(
            "training.early_stopping_patience needs validation data, and there is none.",
            "Set data.validation or data.holdout.",
        )
    model = skeleton(config, preparation.auto_class)
    if training.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise RecipeError(
            f"Models of type {config.model_type} do not support gradient checkpointing.",
            "Set training.gradient_checkpointing=false, and a smaller batch with "
            "training.gradient_accumulation_steps.",
        )
    dropout = preparation.recipe.model.classifier_dropout
    if dropout and not head_dropouts(model):
        raise RecipeError(
            f"model.classifier_dropout={dropout} has no effect: {type(model).__name__} has no "
            "dropout before its task head.",
            "Set model.classifier_dropout=null.",
        )
