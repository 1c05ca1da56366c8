"""Adapters in a model: freeze, insert, list, remove, fold."""

from collections.abc import Collection, Iterable
from typing import TypeVar

from torch import nn

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter.layer import DCFTLinear
from dcft_cli.adapter.targets import Target, find_targets
from dcft_cli.errors import ModelError

M = TypeVar("M", bound=nn.Module)
_FROZEN = "_dcft_frozen"  # attribute of an adapted model: names of the parameters frozen by us


def inject(model: M, config: DCFTConfig, *, head: Iterable[str] | None = None) -> M:
    """Freezes a model and inserts a DCFT adapter at every target, in place.

    Args:
        model: any module that holds `nn.Linear` layers.
        config: what to insert where.
        head: names of the parameters to train besides the adapters. None: all that lie outside
            the pretrained encoder of a transformers model (its task head), nothing in any other
            module. Exact names come from `from_pretrained(..., output_loading_info=True)`:
            its "missing_keys".

    Returns:
        The same model.

    Raises:
        TargetError: a target matches no layer, or the model has adapters already.
        ModelError: a name in `head` is no parameter of the model.
    """
    names = outside_encoder(model) if head is None else set(head)
    if unknown := sorted(names - {name for name, _ in model.named_parameters()}):
        raise ModelError(f"The model has no parameter called {', '.join(unknown)}.")
    insert(model, find_targets(model, config.targets, exclude=names), config, head=names)
    return model


def insert(
    model: nn.Module, targets: Iterable[Target], config: DCFTConfig, *, head: Collection[str]
) -> None:
    """Freezes a model but for `head` and inserts adapters at targets already found."""
    frozen = [n for n, p in model.named_parameters() if p.requires_grad and n not in head]
    setattr(model, _FROZEN, frozen)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in head)
    for target in targets:
        _replace(model, target.name, DCFTLinear(target.layer, config, target.role))


def adapter_layers(model: nn.Module) -> dict[str, DCFTLinear]:
    """The adapted layers by the name of the layer they wrap, in the model's order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, DCFTLinear)}


def head_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained besides the adapters, by name."""
    ours = {f"{name}.{factor}" for name in adapter_layers(model) for factor in "ABC"}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name not in ours
    }


def remove_adapters(model: M) -> M:
    """Puts the untouched layers back, in place, and unfreezes what injection froze.

    The task head keeps what it has learned.
    """
    for name, layer in adapter_layers(model).items():
        _replace(model, name, layer.base)
    return _thaw(model)


def merge(model: M) -> M:
    """Folds every adapter into its layer, W + dW (Eq. 6), in place; the adapters are gone then.

    A model without adapters is left as it is, so merging twice does no harm.
    """
    for name, layer in adapter_layers(model).items():
        _replace(model, name, layer.fold())
    return _thaw(model)


def outside_encoder(model: nn.Module) -> set[str]:
    """Names of the parameters outside the pretrained encoder of a transformers model.

    The encoder is what the model class names by `base_model_prefix`; a model that has none, or
    is the encoder itself, has no such parameters.
    """
    prefix = getattr(model, "base_model_prefix", "")
    if not prefix or not isinstance(getattr(model, prefix, None), nn.Module):
        return set()
    return {n for n, _ in model.named_parameters() if not n.startswith(f"{prefix}.")}


def _thaw(model: M) -> M:
    """Lets the parameters learn again that injection froze."""
    frozen = set(getattr(model, _FROZEN, ()))
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(True)
    return model


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
