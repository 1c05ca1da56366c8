"""What an adapter would be: modules and counts from a model's configuration, without weights."""

from dataclasses import dataclass

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
    """Modules and parameter counts.

    Attributes:
        config: of the adapter.
        modules: the layers that get an adapter.
        head_parameters: outside the pretrained encoder. A checkpoint that has a task head
            already trains fewer, one that lacks a pooler trains more.
        base_parameters: of the whole base model, head included.
        can_checkpoint: whether the model knows gradient checkpointing.
    """

    config: DCFTConfig
    modules: tuple[Module, ...]
    head_parameters: int
    base_parameters: int
    can_checkpoint: bool

    @property
    def adapter_parameters(self) -> int:
        """Trained numbers in the adapter."""
        return sum(module.parameters(self.config) for module in self.modules)


def adapter_config(section: AdapterSection) -> DCFTConfig:
    """The method's settings in a recipe's adapter section."""
    return DCFTConfig(
        kernel_size=section.kernel_size,
        stride=section.stride,
        rank=section.rank,
        scale=section.scale,
        targets=tuple(section.targets),
        init=section.init,
    )


def plan_adapter(section: AdapterSection, config: PreTrainedConfig, auto_class: str) -> AdapterPlan:
    """Finds the targets in a model of this configuration and counts.

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
        can_checkpoint=bool(getattr(model, "supports_gradient_checkpointing", False)),
    )
