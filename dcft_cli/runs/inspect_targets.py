"""`dcft inspect --targets`: what a model's layers do, and which of them a recipe adapts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.read import ADAPTER_FILE
from dcft_cli.adapter_file.write import as_module
from dcft_cli.errors import ModelError, UserError
from dcft_cli.models.loading import load_config, quiet_transformers, skeleton
from dcft_cli.recipe import load_recipe
from dcft_cli.recipe.schema import ModelSection
from dcft_cli.runs.adapter_plan import adapter_config
from dcft_cli.targets.head import outside_encoder
from dcft_cli.targets.resolve import Target, find_roles, find_targets, general_name
from dcft_cli.targets.roles import GROUPS, members
from dcft_cli.targets.weights import find_matrices
from dcft_cli.tasks import FAMILIES


@dataclass(frozen=True)
class LayerKind:
    """Layers that differ in their numbers alone.

    Attributes:
        role: what they do; None: a pattern of their name has to choose them.
        name: of the layers, with `*` for numbers.
        layout: what sets their weights apart (docs/architectures.md).
        count: number of adapters.
        parameters: trained numbers of all of them.
        chosen: whether the targets name them.
    """

    role: str | None
    name: str
    out_features: int
    in_features: int
    layout: Sequence[str]
    count: int
    parameters: int
    chosen: bool


@dataclass(frozen=True)
class Resolution:
    """How targets resolve in a model.

    Attributes:
        source: what was asked for.
        model: its name; differs from `source` for a recipe.
        model_class: the transformers class looked into.
        layers: all that a target can name: those that the targets name first, then those that
            have a role.
        head: modules outside the encoder: trained as they are, no targets.
    """

    source: str
    model: str
    model_type: str
    model_class: str
    config: DCFTConfig
    layers: Sequence[LayerKind]
    head: Sequence[str]

    @property
    def adapter_parameters(self) -> int:
        """Trained numbers of the adapter that the targets make."""
        return sum(kind.parameters for kind in self.layers if kind.chosen)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "source": self.source,
            "model": self.model,
            "model_type": self.model_type,
            "model_class": self.model_class,
            "targets": list(self.config.targets),
            "adapter_parameters": self.adapter_parameters,
            "head": list(self.head),
            "layers": [{**vars(kind), "layout": list(kind.layout)} for kind in self.layers],
        }


def resolve(source: str, overrides: Sequence[str] = ()) -> Resolution:
    """Finds the roles in a model from its configuration alone; no weights are loaded.

    Args:
        source: a recipe, a model on the Hub, a folder, or a configuration file.
        overrides: `KEY=VALUE` for a recipe.

    Raises:
        UserError: no such model or recipe, or targets that match nothing.
    """
    quiet_transformers()
    is_recipe = source.endswith((".yaml", ".yml"))
    if is_recipe:
        recipe = load_recipe(source, overrides).recipe
        section, settings = recipe.model, adapter_config(recipe.adapter)
        classes = [FAMILIES[recipe.task.kind].auto_class]
    else:
        if overrides:
            raise UserError(
                f"{source} is no recipe; KEY=VALUE goes with recipes alone.",
                f"Leave out {overrides[0]}.",
            )
        section, settings = ModelSection(name=source), DCFTConfig()
        classes = ["AutoModelForSequenceClassification", "AutoModel"]
    if Path(source).suffix == ".safetensors" or (Path(source) / ADAPTER_FILE).exists():
        raise UserError(
            f"{source} is no model and no recipe.",
            f"The layers of a trained adapter: `dcft inspect {source}`. For a model give its "
            "folder, its config.json, or its name on the Hub.",
        )
    config = load_config(section, {})
    model = _model(config, classes)
    head = outside_encoder(model)
    with_role = find_roles(model, exclude=head)
    if not is_recipe:  # nothing was asked for: the usual roles, as far as there are any
        there = {single for target in with_role for single in members(target.role)}
        usual = [t for t in settings.targets if there.issuperset(GROUPS.get(t, (t,)))]
        settings = replace(settings, targets=usual or settings.targets)
    chosen = find_targets(model, settings.targets, exclude=head)
    taken = {target.name for target in chosen} | {target.matrix.name for target in chosen}
    roles = [
        target
        for target in with_role
        if target.name not in taken and (target.rows is None or target.matrix.name not in taken)
    ]
    known = {matrix.name for target in (*chosen, *with_role) for matrix in target.matrices}
    others = [
        Target(matrix.name, "", (matrix,))
        for matrix in find_matrices(model)
        if matrix.called and matrix.name not in known and matrix.parameter_name not in head
    ]
    layers = [(True, target) for target in chosen] + [(False, t) for t in (*roles, *others)]
    return Resolution(
        source=source,
        model=section.name,
        model_type=config.model_type,
        model_class=type(model).__name__,
        config=settings,
        layers=_kinds(layers, settings),
        head=sorted({name.rpartition(".")[0] or name for name in head}),
    )


def _model(config: PreTrainedConfig, classes: Sequence[str]) -> nn.Module:
    """The first of the classes that transformers has for this type of model."""
    for name in classes:
        try:
            return skeleton(config, name)
        except ModelError:
            if name == classes[-1]:
                raise
    raise AssertionError(classes)


def _kinds(targets: Sequence[tuple[bool, Target]], config: DCFTConfig) -> list[LayerKind]:
    groups: dict[tuple[Any, ...], list[Target]] = {}
    for chosen, target in targets:
        key = (target.role, general_name(target.name), target.out_features, target.in_features)
        groups.setdefault((*key, target.layout, chosen), []).append(target)
    return [
        LayerKind(
            role=role or None,
            name=name,
            out_features=out,
            in_features=into,
            layout=layout,
            count=len(group),
            parameters=sum(as_module(target).parameters(config) for target in group),
            chosen=chosen,
        )
        for (role, name, out, into, layout, chosen), group in groups.items()
    ]
