"""The adapter that a recipe describes: layers and counts, from a model's configuration only."""

from dataclasses import dataclass, fields

from transformers import PreTrainedConfig

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.spec import Module
from dcft_cli.adapter_file.write import as_module
from dcft_cli.models.loading import skeleton
from dcft_cli.recipe import AdapterSection
from dcft_cli.targets.head import outside_encoder
from dcft_cli.targets.resolve import find_targets


@dataclass(frozen=True)
class AdapterPlan:
    """Adapted layers and parameter counts.

    Attributes:
        config: of the adapter.
        modules: the layers that get an adapter.
        head_parameters: outside the pretrained encoder. Fewer are trained if the checkpoint has a
            task head already, more if it lacks a pooler.
        base_parameters: of the whole base model, head included.
    """

    config: DCFTConfig
    modules: tuple[Module, ...]
    head_parameters: int
    base_parameters: int

    @property
    def adapter_parameters(self) -> int:
        """Number of trained parameters in the adapter."""
        return sum(module.parameters(self.config) for module in self.modules)


def adapter_config(section: AdapterSection) -> DCFTConfig:
    """Return the method's settings in a recipe's adapter section."""
    names = {field.name for field in fields(DCFTConfig)}
    return DCFTConfig(**section.model_dump(include=names))


def plan_adapter(section: AdapterSection, config: PreTrainedConfig, auto_class: str) -> AdapterPlan:
    """Find the targets in a model of this configuration and count parameters.

    Raises:
        TargetError: a target matches no layer.
    """
    model = skeleton(config, auto_class)
    head = outside_encoder(model)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    modules = tuple(as_module(t) for t in find_targets(model, section.targets, exclude=head))
    return AdapterPlan(
        config=adapter_config(section),
        modules=modules,
        head_parameters=sum(sizes[name] for name in head),
        base_parameters=sum(sizes.values()),
    )
