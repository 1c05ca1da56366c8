"""What `dcft train` will do, found out without loading a weight."""

from dataclasses import dataclass
from pathlib import Path

from transformers import TrainingArguments

from dcft_cli.errors import ModelError, RecipeError
from dcft_cli.recipe import LoadedRecipe, Recipe
from dcft_cli.runs.adapter_plan import AdapterPlan, plan_adapter
from dcft_cli.runs.folder import RunFolder
from dcft_cli.runs.prepare import Preparation, prepare
from dcft_cli.training.arguments import device_in_words, optimizer_steps, training_arguments
from dcft_cli.training.compiling import check_compiler


@dataclass(frozen=True)
class TrainingPlan:
    """All that training will do, found out without loading a weight.

    Attributes:
        steps_per_epoch, total_steps: optimizer steps.
        tokens: input tokens of the training set, padding not counted.
    """

    preparation: Preparation
    adapter: AdapterPlan
    arguments: TrainingArguments
    folder: RunFolder
    steps_per_epoch: int
    total_steps: int
    tokens: int

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return self.preparation.recipe

    @property
    def train_rows(self) -> int:
        """Encoded training rows (for question answering: windows)."""
        assert self.preparation.train_set is not None
        return len(self.preparation.train_set)

    @property
    def batch_size(self) -> int:
        """Rows of one optimizer step, on all devices together."""
        args = self.arguments
        return int(args.train_batch_size * args.world_size * args.gradient_accumulation_steps)

    @property
    def device(self) -> str:
        """Where it runs, in words."""
        return device_in_words(self.arguments.device)

    @property
    def precision(self) -> str:
        """Type of the computation."""
        mixed = {self.arguments.bf16: "bfloat16", self.arguments.fp16: "float16"}
        return mixed.get(True, "float32")


def plan_training(
    loaded: LoadedRecipe,
    *,
    output: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> TrainingPlan:
    """Checks recipe, data, model configuration, device and output folder.

    Args:
        output: run folder; goes before the recipe's own and the default, runs/NAME.
        overwrite: an earlier run in the folder may be replaced.
        resume: go on from the folder's last checkpoint.

    Raises:
        UserError: whatever does not fit.
    """
    recipe = loaded.recipe
    place = Path(output or recipe.training.output or Path("runs") / loaded.name)
    folder = RunFolder(place.expanduser())
    folder.check_free(overwrite=overwrite, resume=resume)
    machine = training_arguments(recipe.training, recipe.model, output=folder.checkpoints)
    if recipe.training.compile:
        check_compiler(machine.device, machine.n_gpu)
    preparation = prepare(recipe)
    assert preparation.train_set is not None
    recipe = preparation.recipe
    per_epoch, total = optimizer_steps(
        recipe.training, len(preparation.train_set), machine.train_batch_size * machine.world_size
    )
    scored = bool(preparation.evaluation_sets)
    if recipe.training.early_stopping_patience and not scored:
        raise RecipeError(
            "training.early_stopping_patience needs validation data, and there is none.",
            "Give data.validation or data.holdout.",
        )
    arguments = training_arguments(
        recipe.training,
        recipe.model,
        output=folder.checkpoints,
        steps_per_epoch=per_epoch,
        total_steps=total,
        metric=preparation.loaded.main_metric if scored else None,
        greater_is_better=preparation.loaded.greater_is_better,
    )
    if hasattr(preparation.config, "axial_pos_shape"):
        raise ModelError(
            f"Models of type {preparation.config.model_type} train on inputs of one length alone, "
            "to which `dcft train` does not pad.",
            "Train it in Python: inject(model, config), see docs/python.md.",
        )
    adapter = plan_adapter(recipe.adapter, preparation.config, preparation.auto_class)
    if recipe.training.gradient_checkpointing and not adapter.can_checkpoint:
        raise RecipeError(
            f"Models of type {preparation.config.model_type} have no gradient checkpointing.",
            "Set training.gradient_checkpointing=false, and a smaller batch with "
            "training.gradient_accumulation_steps.",
        )
    return TrainingPlan(
        preparation=preparation,
        adapter=adapter,
        arguments=arguments,
        folder=folder,
        steps_per_epoch=per_epoch,
        total_steps=total,
        tokens=sum(preparation.train_set["length"][:]),
    )
