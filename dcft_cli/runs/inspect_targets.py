"""`dcft inspect --targets`: the roles of a model's layers, and which of them a recipe adapts."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import AutoModelForSequenceClassification

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.write import as_module
from dcft_cli.models.loading import load_config, quiet_transformers, skeleton
from dcft_cli.recipe import AdapterSection, load_recipe
from dcft_cli.recipe.schema import HeadSection, ModelSection
from dcft_cli.runs.adapter_plan import plan_adapter, targets_of
from dcft_cli.runs.inspect_adapter import RECIPE_ENDINGS, refuse_overrides
from dcft_cli.targets.head import find_parts, outside_encoder
from dcft_cli.targets.resolve import Target, find_roles, general_name
from dcft_cli.targets.roles import GROUPS, members
from dcft_cli.targets.weights import find_matrices
from dcft_cli.tasks import FAMILIES


@dataclass(frozen=True)
class LayerKind:
    """Layers whose names differ only in numbers.

    Attributes:
        role: None if only a name pattern can select the layers.
        name: with `*` for numbers.
        layout: how the weights are stored (docs/architectures.md).
        count: number of these layers.
        parameters: of DCFT's adapters for all of them; None for another method.
        chosen: whether the targets select them.
    """

    role: str | None
    name: str
    out_features: int
    in_features: int
    layout: Sequence[str]
    count: int
    parameters: int | None
    chosen: bool


@dataclass(frozen=True)
class Resolution:
    """How targets resolve in a model.

    Attributes:
        model_class: the model's transformers class.
        layers: all layers that a target can select: first those that the targets do select, then
            others with a role, then those without.
        head: modules outside the encoder that are trained in full.
        method, targets: of the recipe; else DCFT, and those of its targets that the model has.
        config: DCFT's settings; None for another method.
        adapter_parameters: number of values that the method trains in the encoder.
    """

    source: str
    model: str
    model_type: str
    model_class: str
    method: str
    targets: Sequence[str]
    config: DCFTConfig | None
    adapter_parameters: int
    layers: Sequence[LayerKind]
    head: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Return the output of `--json`."""
        values = {name: value for name, value in vars(self).items() if name != "config"}
        return {**values, "layers": [vars(kind) for kind in self.layers]}


def resolve(source: str, overrides: Sequence[str] = ()) -> Resolution:
    """Find the roles of a model's layers from its configuration, without loading weights.

    Args:
        source: a recipe, a model on the Hub, a folder, or a configuration file.
        overrides: `KEY=VALUE` for a recipe.

    Raises:
        UserError: no such model or recipe, or a target that matches nothing.
    """
    quiet_transformers()
    is_recipe = source.endswith(RECIPE_ENDINGS)
    if is_recipe:
        recipe = load_recipe(source, overrides).recipe
        section, settings, dense = recipe.model, recipe.adapter, recipe.head.dense
        auto_class = FAMILIES[recipe.task.kind].auto_class
    else:
        refuse_overrides(source, overrides)
        section, settings, dense = ModelSection(name=source), AdapterSection(), HeadSection().dense
        auto_class = "AutoModelForSequenceClassification"
    config = load_config(section)
    if not is_recipe and type(config) not in AutoModelForSequenceClassification._model_mapping:
        auto_class = "AutoModel"
    model = skeleton(config, auto_class)
    head = outside_encoder(model)
    with_role = find_roles(model, exclude=head)
    if not is_recipe:  # the default targets that the model has
        available = {role for target in with_role for role in members(target.role)}
        targets = [t for t in settings.targets if available.issuperset(GROUPS.get(t, (t,)))]
        settings = settings.model_copy(update={"targets": targets or settings.targets})
    plan = plan_adapter(settings, config, auto_class, dense=dense)
    parts = find_parts(model, targets_of(settings), head=head, dense=dense)
    others = _not_chosen(model, parts.targets, with_role, head)
    return Resolution(
        source=source,
        model=section.name,
        model_type=config.model_type,
        model_class=type(model).__name__,
        method=settings.method,
        targets=targets_of(settings),
        config=plan.config,
        adapter_parameters=plan.adapter_parameters,
        layers=[
            *_kinds(parts.targets, plan.config, chosen=True),
            *_kinds(others, plan.config, chosen=False),
        ],
        head=sorted({name.rpartition(".")[0] or name for name in parts.trained}),
    )


def _not_chosen(
    model: nn.Module, chosen: Sequence[Target], with_role: Sequence[Target], head: Collection[str]
) -> list[Target]:
    """Return what else targets could select: first what has a role, then other layers."""
    used = {target.name for target in chosen} | {target.matrix.name for target in chosen}
    unused = [
        target
        for target in with_role
        if target.name not in used and (target.rows is None or target.matrix.name not in used)
    ]
    listed = {matrix.name for target in (*chosen, *with_role) for matrix in target.matrices}
    without_role = [
        Target(matrix.name, "", (matrix,))
        for matrix in find_matrices(model)
        if matrix.called and matrix.name not in listed and matrix.parameter_name not in head
    ]
    return [*unused, *without_role]


def _kinds(
    targets: Sequence[Target], config: DCFTConfig | None, *, chosen: bool
) -> list[LayerKind]:
    groups: dict[tuple[Any, ...], list[Target]] = {}
    for target in targets:
        sizes = target.out_features, target.in_features
        key = (target.role, general_name(target.name), *sizes, target.layout)
        groups.setdefault(key, []).append(target)
    return [
        LayerKind(
            role=role or None,
            name=name,
            out_features=out_features,
            in_features=in_features,
            layout=layout,
            count=len(group),
            parameters=None
            if config is None
            else sum(as_module(target).parameters(config) for target in group),
            chosen=chosen,
        )
        for (role, name, out_features, in_features, layout), group in groups.items()
    ]
