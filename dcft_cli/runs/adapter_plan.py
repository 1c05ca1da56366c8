"""The adapter that a recipe describes: layers and counts, from a model's configuration only."""

import copy
from dataclasses import dataclass

from transformers import PreTrainedConfig

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.spec import Module
from dcft_cli.adapter_file.write import as_module
from dcft_cli.errors import RecipeError
from dcft_cli.methods.build import build
from dcft_cli.methods.dcft import adapter_config
from dcft_cli.models.loading import skeleton
from dcft_cli.recipe import AdapterSection
from dcft_cli.recipe.methods import METHODS
from dcft_cli.targets.head import Dense, find_parts, outside_encoder


@dataclass(frozen=True)
class AdapterPlan:
    """Adapted layers and parameter counts.

    Attributes:
        settings: of the method.
        modules: the layers that get an adapter; empty if the method has no targets.
        adapter_parameters: number of trained values in the encoder.
        head_parameters: trained outside the pretrained encoder. Fewer if the checkpoint has a
            task head already, more if it lacks a pooler.
        fixed: names of parameters outside the encoder that are not trained.
        base_parameters: of the whole base model, head included.
    """

    settings: AdapterSection
    modules: tuple[Module, ...]
    adapter_parameters: int
    head_parameters: int
    fixed: frozenset[str]
    base_parameters: int

    @property
    def config(self) -> DCFTConfig | None:
        """The settings of DCFT; None for another method."""
        return adapter_config(self.settings) if self.settings.method == "dcft" else None


def plan_adapter(
    section: AdapterSection,
    config: PreTrainedConfig,
    auto_class: str,
    *,
    dense: Dense = "full",
    total_steps: int | None = None,
) -> AdapterPlan:
    """Find the targets in a model of this configuration and count parameters.

    Args:
        dense: what to do with the dense layers of the head (`find_parts`).
        total_steps: of the training, for schedules; None: they are not checked.

    Raises:
        TargetError: a target matches no layer.
        RecipeError: a schedule does not fit the steps; or the head needs an adapter, and the
            method has none to put there.
    """
    model = skeleton(config, auto_class)
    if section.method != "dcft":
        model = copy.deepcopy(model)  # the skeleton is shared, and a method is attached to this one
    parts = find_parts(model, targets_of(section), head=outside_encoder(model), dense=dense)
    if dense == "adapter" and "targets" not in METHODS[section.method].keys:
        raise RecipeError(
            f"head.dense: adapter needs a method that adapts single layers; {section.method} "
            "does not.",
            "Set head.dense to full or frozen.",
        )
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    modules = tuple(map(as_module, parts.targets))
    if section.method == "dcft":
        found = adapter_config(section)
        count = sum(module.parameters(found) for module in modules)
    else:
        method = build(section, seed=0, total_steps=total_steps)
        method.attach(model, parts)
        count = method.trained_parameters()
    return AdapterPlan(
        settings=section,
        modules=modules,
        adapter_parameters=count,
        head_parameters=sum(sizes[name] for name in parts.trained),
        fixed=parts.fixed,
        base_parameters=sum(sizes.values()),
    )


def targets_of(section: AdapterSection) -> list[str]:
    """Return the targets of a recipe's method: the recipe's, or the method's own places."""
    method = METHODS[section.method]
    return section.targets if "targets" in method.keys else list(method.places)
