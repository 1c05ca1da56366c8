"""`dcft inspect`: what an adapter file holds, or what a recipe would train. No torch for a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.adapter_file.spec import Module
from dcft_cli.errors import UserError
from dcft_cli.runs.folder import adapter_file

_RECIPE_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Inspection:
    """An adapter, trained or planned.

    Attributes:
        source: the file.
        planned: from a recipe: nothing is trained yet, so there are no norms and no bytes.
        norms: Frobenius norm of dW by module; empty when planned.
        base: the base model's name, and its fingerprint where known.
        about: facts worth a line each: task, labels, versions.
    """

    source: Path
    planned: bool
    config: DCFTConfig
    modules: Sequence[Module]
    head_parameters: int
    norms: Mapping[str, float]
    base: Mapping[str, str | None]
    about: Mapping[str, Any]
    file_bytes: int | None = None
    format_version: int | None = None

    @property
    def adapter_parameters(self) -> int:
        """Trained numbers in the adapter, head not counted."""
        return sum(module.parameters(self.config) for module in self.modules)

    @property
    def lora_parameters(self) -> int:
        """What LoRA with r = 1 trains in the same modules."""
        return sum(m.lora_parameters for m in self.modules)

    @property
    def full_parameters(self) -> int:
        """What full fine-tuning trains in the same modules (their weights)."""
        return sum(m.full_parameters for m in self.modules)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        config = self.config
        return {
            "source": str(self.source),
            "planned": self.planned,
            "adapter_parameters": self.adapter_parameters,
            "head_parameters": self.head_parameters,
            "file_bytes": self.file_bytes,
            "format_version": self.format_version,
            "base": dict(self.base),
            "lora_r1_parameters": self.lora_parameters,
            "full_parameters": self.full_parameters,
            "scale": config.scale,
            "targets": list(config.targets),
            **self.about,
            "modules": [
                {
                    "name": module.name,
                    "role": module.role,
                    "out_features": module.out_features,
                    "in_features": module.in_features,
                    "kernel_size": config.kernel_size,
                    "stride": config.effective_stride,
                    "rank": config.rank,
                    "parameters": module.parameters(config),
                    "norm": self.norms.get(module.name),
                }
                for module in self.modules
            ],
        }


def inspect(place: str, overrides: Sequence[str] = ()) -> Inspection:
    """Looks into an adapter file, a run folder, or a recipe.

    Args:
        place: adapter file, run folder or checkpoint folder; or a recipe (`.yaml`), whose plan
            comes from the base model's configuration alone.
        overrides: `KEY=VALUE` for a recipe.

    Raises:
        UserError: nothing there, a damaged file, or mistakes in the recipe.
    """
    if place.endswith(_RECIPE_ENDINGS):
        return _inspect_recipe(place, overrides)
    if overrides:
        raise UserError(
            f"{place} is no recipe; KEY=VALUE goes with recipes alone.",
            f"Leave out {overrides[0]}.",
        )
    contents = read_adapter(adapter_file(place))
    task = contents.info.get("task", {})
    return Inspection(
        source=contents.path,
        planned=False,
        config=contents.config,
        modules=contents.modules,
        head_parameters=contents.head_parameters,
        norms={module.name: contents.delta_norm(module) for module in contents.modules},
        base=contents.base,
        about={
            "task": task.get("name") or task.get("type"),
            "labels": task.get("labels", []),
            "max_length": contents.info.get("data", {}).get("max_length"),
            "versions": dict(contents.versions),
        },
        file_bytes=contents.file_bytes,
        format_version=contents.format_version,
    )


def _inspect_recipe(name: str, overrides: Sequence[str]) -> Inspection:
    from dcft_cli.models.loading import load_config, quiet_transformers
    from dcft_cli.recipe import load_recipe
    from dcft_cli.runs.adapter_plan import plan_adapter
    from dcft_cli.tasks import build_task, labels_only_in_data, load_task

    loaded = load_recipe(name, overrides)
    recipe = loaded.recipe
    quiet_transformers()
    if labels_only_in_data(recipe.task, recipe.data):
        task = load_task(recipe.task, recipe.data).task  # the labels are in the data alone
    else:
        task = build_task(recipe.task, recipe.data)
    plan = plan_adapter(
        recipe.adapter, load_config(recipe.model, task.model_settings), task.auto_class
    )
    return Inspection(
        source=loaded.path,
        planned=True,
        config=plan.config,
        modules=plan.modules,
        head_parameters=plan.head_parameters,
        norms={},
        base={"name": recipe.model.name, "revision": recipe.model.revision, "fingerprint": None},
        about={"task": recipe.task.name or recipe.task.kind, "labels": list(task.labels)},
    )
