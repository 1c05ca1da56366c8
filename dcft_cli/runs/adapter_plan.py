"""The adapter that a recipe describes: layers and counts, from a model's configuration only."""

from dataclasses import dataclass, fields

from transformers import PreTrainedConfig

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.spec import Module
from dcft_cli.adapter_file.write import as_module
from dcft_cli.models.loading import skeleton
from dcft_cli.recipe import AdapterSection
from dcft_cli.targets.head import Dense, find_parts, outside_encoder


@dataclass(frozen=True)
class AdapterPlan:
    """Adapted layers and parameter counts.

    Attributes:
        config: of the adapter.
        modules: the layers that get an adapter.
        head_parameters: trained outside the pretrained encoder. Fewer if the checkpoint has a
            task head already, more if it lacks a pooler.
        fixed: names of parameters outside the encoder that are not trained.
        base_parameters: of the whole base model, head included.
    """

    config: DCFTConfig
    modules: tuple[Module, ...]
    head_parameters: int
    fixed: frozenset[str]
    base_parameters: int

    @property
    def adapter_parameters(self) -> int:
        """Number of trained parameters in the adapter."""
        return sum(module.parameters(self.config) for module in self.modules)


def adapter_config(section: AdapterSection) -> DCFTConfig:
    """Return the method's settings in a recipe's adapter section."""
    names = {field.name for field in fields(DCFTConfig)}
    return DCFTConfig(**section.model_dump(include=names))


def plan_adapter(
    section: AdapterSection, config: PreTrainedConfig, auto_class: str, *, dense: Dense = "full"
) -> AdapterPlan:
    """Find the targets in a model of this configuration and count parameters.

    Args:
        dense: what to do with the dense layers of the head (`find_parts`).

    Raises:
        TargetError: a target matches no layer.
    """
    model = skeleton(config, auto_class)
    parts = find_parts(model, section.targets, head=outside_encoder(model), dense=dense)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    return AdapterPlan(
        config=adapter_config(section),
        modules=tuple(map(as_module, parts.targets)),
        head_parameters=sum(sizes[name] for name in parts.trained),
        fixed=parts.fixed,
        base_parameters=sum(sizes.values()),
    )
