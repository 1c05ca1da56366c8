"""`dcft inspect`: the contents of an adapter file, or the adapter that a recipe would train."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.about import About
from dcft_cli.adapter_file.contents import AdapterContents, BaselineContents
from dcft_cli.adapter_file.read import read_contents
from dcft_cli.adapter_file.spec import Module
from dcft_cli.errors import AdapterFileError, UserError
from dcft_cli.runs.folder import adapter_file

RECIPE_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Inspection:
    """An adapter, trained or planned.

    Attributes:
        source: the adapter file or the recipe.
        method, settings: of the fine-tuning, as in a recipe's adapter section.
        config: of DCFT; None for another method.
        planned: whether it comes from a recipe, so that nothing is trained yet.
        fixed: names of parameters that the base lacks and that are not trained.
        adapter_parameters: trained values without the head.
        norms: Frobenius norm of dW by module, where it was computed; empty if planned, or for
            another method.
        base: the base model's name, revision and fingerprint, as far as known.
        about: further facts: task, labels, what was chosen on validation rows, versions.
        file_bytes, dtype, format_version: of the adapter file; None if planned.
    """

    source: Path
    planned: bool
    method: str
    settings: Mapping[str, Any]
    config: DCFTConfig | None
    modules: Sequence[Module]
    adapter_parameters: int
    head_parameters: int
    fixed: Collection[str]
    norms: Mapping[str, float]
    base: Mapping[str, str | None]
    about: Mapping[str, Any]
    file_bytes: int | None = None
    dtype: str | None = None
    format_version: int | None = None

    @property
    def lora_parameters(self) -> int:
        """Number of parameters that LoRA with r=1 trains in the same layers."""
        return sum(m.lora_parameters for m in self.modules)

    @property
    def full_parameters(self) -> int:
        """Number of parameters that full fine-tuning trains in the same layers (weights only)."""
        return sum(m.full_parameters for m in self.modules)

    def to_json(self) -> dict[str, Any]:
        """Return the output of `--json`."""
        return {
            "source": str(self.source),
            "planned": self.planned,
            "method": self.method,
            "settings": dict(self.settings),
            "adapter_parameters": self.adapter_parameters,
            "head_parameters": self.head_parameters,
            "fixed": sorted(self.fixed),
            "file_bytes": self.file_bytes,
            "dtype": self.dtype,
            "format_version": self.format_version,
            "base": dict(self.base),
            "lora_r1_parameters": self.lora_parameters,
            "full_parameters": self.full_parameters,
            **self.about,
            "modules": [self._module(module) for module in self.modules],
        }

    def _module(self, module: Module) -> dict[str, Any]:
        values = {
            "name": module.name,
            "role": module.role,
            "out_features": module.out_features,
            "in_features": module.in_features,
        }
        if config := self.config:
            values |= {
                "kernel_size": config.kernel_size,
                "stride": config.effective_stride,
                "rank": config.rank,
                "parameters": module.parameters(config),
                "norm": self.norms.get(module.name),
            }
        return values


def inspect(source: str, overrides: Sequence[str] = ()) -> Inspection:
    """Inspect an adapter file, which needs no torch, or a recipe, which loads no weights.

    Args:
        source: adapter file, run folder or checkpoint folder; or a recipe (`.yaml`).
        overrides: `KEY=VALUE` for a recipe.

    Raises:
        UserError: there is no such file, it is damaged, or the recipe has mistakes.
    """
    if source.endswith(RECIPE_ENDINGS):
        return _inspect_recipe(source, overrides)
    refuse_overrides(source, overrides)
    contents = read_contents(adapter_file(source))
    config: DCFTConfig | None = None
    norms: dict[str, float] = {}
    settings: Mapping[str, Any] = {}
    if isinstance(contents, AdapterContents):
        config = contents.config
        settings = {**asdict(config), "stride": config.effective_stride}
        computed = {module.name: contents.delta_norm(module) for module in contents.modules}
        norms = {name: norm for name, norm in computed.items() if norm is not None}
    elif isinstance(contents, BaselineContents):
        settings = contents.settings
    about = About()
    with suppress(AdapterFileError):  # unusable facts about the task do not hide the rest
        about = contents.about()
    labels = contents.model["labels"]
    unnamed = [f"LABEL_{number}" for number in range(len(labels))]  # outputs that are no classes
    return Inspection(
        source=contents.path,
        planned=False,
        method=contents.method,
        settings=settings,
        config=config,
        modules=contents.modules,
        adapter_parameters=contents.adapter_parameters,
        head_parameters=contents.head_parameters,
        fixed=contents.fixed,
        norms=norms,
        base=contents.base,
        about={
            "task": about.task.name or about.task.type,
            "labels": [] if labels == unnamed else labels,
            "decision": about.decision.chosen(),
            "max_length": about.data.max_length,
            "versions": dict(contents.versions),
        },
        file_bytes=contents.file_bytes,
        dtype=contents.dtype,
        format_version=contents.format_version,
    )


def refuse_overrides(source: str, overrides: Sequence[str]) -> None:
    """Raise UserError for overrides of something other than a recipe."""
    if overrides:
        raise UserError(
            f"{source} is not a recipe; only recipes take KEY=VALUE.", f"Remove {overrides[0]}."
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
        task = load_task(recipe.task, recipe.data).task
    else:
        task = build_task(recipe.task, recipe.data)
    config = load_config(recipe.model, task.model_settings)
    plan = plan_adapter(recipe.adapter, config, task.auto_class, dense=recipe.head.dense)
    return Inspection(
        source=loaded.path,
        planned=True,
        method=recipe.adapter.method,
        settings=recipe.adapter.own_settings(),
        config=plan.config,
        modules=plan.modules,
        adapter_parameters=plan.adapter_parameters,
        head_parameters=plan.head_parameters,
        fixed=plan.fixed,
        norms={},
        base={"name": recipe.model.name, "revision": recipe.model.revision, "fingerprint": None},
        about={"task": recipe.task.name or recipe.task.kind, "labels": list(task.labels)},
    )
