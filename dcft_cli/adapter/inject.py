"""Adapters in a model: freeze, insert, list, remove."""

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, TypeVar

from torch import nn
from torch.nn.utils import parametrize

from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter.layer import AdaptedWeight, DCFTLinear, DCFTParametrization
from dcft_cli.errors import ModelError, TargetError
from dcft_cli.targets.example import example_of
from dcft_cli.targets.gradients import Loss, find_unreached, reset_input_gradients
from dcft_cli.targets.head import Dense, find_parts, fix, outside_encoder
from dcft_cli.targets.modules import replace_modules
from dcft_cli.targets.resolve import Target

M = TypeVar("M", bound=nn.Module)
# Set on an adapted model: names of the parameters that `insert` froze and fixed.
_FROZEN, _FIXED = "_dcft_frozen", "_dcft_fixed"


def inject(
    model: M,
    config: DCFTConfig,
    *,
    head: Iterable[str] | None = None,
    dense: Dense = "full",
    inputs: Mapping[str, Any] | None = None,
) -> M:
    """Freeze a model and insert a DCFT adapter at every target, in place.

    Layers that do not affect the output get none, and a warning names them.

    Args:
        model: any module.
        config: what to insert where.
        head: names of the parameters to train in addition to the adapters. None: the task head of
            a transformers model; nothing in any other module.
            Exact names come from `from_pretrained(..., output_loading_info=True)`: its
            "missing_keys".
        dense: what to do with the square linear layers of the head before its last one. "full":
            train them. "frozen": set their weights to the identity and their biases to zero.
            "adapter": set them too, and insert adapters.
        inputs: of one forward pass, to find out which layers are reached. None: a few token ids,
            for a model that reads them.

    Returns:
        The same model.

    Raises:
        TargetError: a target matches no layer, none of the layers affects the output, or the
            model has adapters already.
        ModelError: a name in `head` is no parameter of the model.
    """
    refuse_adapted(model)
    names = outside_encoder(model) if head is None else set(head)
    if unknown := sorted(names - {name for name, _ in model.named_parameters()}):
        raise ModelError(f"The model has no parameter called {', '.join(unknown)}.")
    parts = find_parts(model, config.targets, head=names, dense=dense)
    insert(model, parts.targets, config, head=parts.trained, fixed=parts.fixed)
    removed: list[str] = []
    example = example_of(model) if inputs is None else inputs
    try:
        removed = [] if example is None else remove_unreached(model, example)
    except Exception as error:
        if inputs is not None or isinstance(error, TargetError):
            remove_adapters(model)
            raise
        # A model that needs more than token ids raises errors of its own.
        warnings.warn(
            f"Could not check that {type(model).__name__} uses every adapter: its forward pass "
            f"fails on token ids only ({type(error).__name__}: {error}). Pass the `inputs` of one "
            "forward pass to inject().",
            stacklevel=2,
        )
    if removed:
        warnings.warn(
            f"{len(removed)} layers do not affect the output of {type(model).__name__} and get no "
            f"adapter: {', '.join(removed)}.",
            stacklevel=2,
        )
    return model


def remove_unreached(
    model: nn.Module, inputs: Mapping[str, Any], loss: Loss | None = None
) -> list[str]:
    """Remove the adapters that the loss does not depend on: they would learn nothing.

    Args:
        model: a model with adapters.
        inputs: of one forward pass.
        loss: of outputs and inputs; None: the model's own.

    Returns:
        Their names. Empty if no adapter has a gradient, as with a task head that starts at zero:
        the pass then tells nothing.

    Raises:
        TargetError: no adapter is in the graph of the loss.
    """
    adapters = [a for a in model.modules() if isinstance(a, DCFTAdapter)]
    # Only C: where dW starts at zero, A and B have no gradient yet.
    found = find_unreached(model, [[adapter.C] for adapter in adapters], inputs, loss)
    unreached = [a for a, is_unreached in zip(adapters, found, strict=True) if is_unreached]
    weights = list(adapted_weights(model))
    for weight in weights:
        weight.adapters = nn.ModuleList(a for a in weight.adapters if a not in unreached)
    _unwrap(model, [weight for weight in weights if not len(weight.adapters)])
    return [adapter.target.name for adapter in unreached if adapter.target]


def refuse_adapted(model: nn.Module) -> None:
    """Raise TargetError if the model has adapters already."""
    if adapter_layers(model):
        raise TargetError(
            "The model has DCFT adapters already.", "Remove them first: remove_adapters(model)."
        )


def insert(
    model: nn.Module,
    targets: Iterable[Target],
    config: DCFTConfig,
    *,
    head: Collection[str],
    fixed: Collection[str] = (),
) -> None:
    """Freeze a model except `head` and insert adapters at resolved targets.

    Args:
        fixed: names of matrices to set to the identity, and of vectors to set to zero.
    """
    setattr(model, _FIXED, frozenset(fixed))
    for name in fixed:
        fix(model.get_parameter(name))
    frozen = [n for n, p in model.named_parameters() if p.requires_grad and n not in head]
    setattr(model, _FROZEN, frozen)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in head)
    wrappers: dict[nn.Module, nn.Module] = {}
    # Blocks of one weight follow each other.
    for _, blocks in groupby(targets, key=lambda target: id(target.matrix.parameter)):
        adapters = []
        for target in blocks:
            matrix = target.matrix
            adapter = DCFTAdapter(
                matrix.in_features,
                matrix.out_features,
                config,
                rows=target.rows,
                count=matrix.count,
                device=matrix.parameter.device,
            )
            adapter.target = target
            adapters.append(adapter)
        for matrix in target.matrices:  # one adapter for all layers that share the weight
            if matrix.called:
                wrappers[matrix.module] = DCFTLinear(matrix.module, adapters, matrix)
            else:
                parametrize.register_parametrization(
                    matrix.module, matrix.tensor, DCFTParametrization(matrix, adapters)
                )
    replace_modules(model, wrappers)


def adapted_weights(model: nn.Module) -> Iterator[AdaptedWeight]:
    """Iterate over the modules that carry adapters, in the model's order."""
    return (module for module in model.modules() if isinstance(module, AdaptedWeight))


def adapter_layers(model: nn.Module) -> dict[str, DCFTAdapter]:
    """Return the adapters by the name of the layer they belong to, in the model's order."""
    adapters = (module for module in model.modules() if isinstance(module, DCFTAdapter))
    return {a.target.name: a for a in adapters if a.target}


def head_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained in addition to the adapters, by name."""
    return {name: p for name, p in base_parameters(model).items() if p.requires_grad}


def fixed_parameters(model: nn.Module) -> frozenset[str]:
    """Return the names of the parameters that `insert` set to the identity or to zero."""
    return getattr(model, _FIXED, frozenset())


def base_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return all parameters except the adapters', by their names in a model without adapters."""
    adapters = (module for module in model.modules() if isinstance(module, DCFTAdapter))
    ours = {id(parameter) for adapter in adapters for parameter in adapter.parameters()}
    renamed: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, DCFTLinear):
            renamed |= {
                f"{name}.base.{n}": f"{name}.{n}" for n, _ in module.base.named_parameters()
            }
        elif isinstance(module, DCFTParametrization):
            inside = f"parametrizations.{module.matrix.tensor}."
            owner = name.removesuffix(f"{inside}0")  # with its dot, if it has a name
            renamed[f"{owner}{inside}original"] = f"{owner}{module.matrix.tensor}"
    return {renamed.get(n, n): p for n, p in model.named_parameters() if id(p) not in ours}


def remove_adapters(model: M) -> M:
    """Restore the base model, in place, and unfreeze the parameters that `insert` froze.

    The task head keeps what it has learned.
    """
    _unwrap(model, list(adapted_weights(model)))
    model.__dict__.pop(_FIXED, None)
    frozen = set(model.__dict__.pop(_FROZEN, ()))
    reset_input_gradients(model)
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(True)
    return model


def _unwrap(model: nn.Module, weights: Iterable[AdaptedWeight]) -> None:
    """Put base layers and weights back in the place of these modules."""
    bases: dict[nn.Module, nn.Module] = {}
    for weight in weights:
        if isinstance(weight, DCFTLinear):
            bases[weight] = weight.base
            continue
        owner, tensor = weight.matrix.module, weight.matrix.tensor
        # torch makes a class for every parametrized module, and deletes the tensor's property from
        # it here. A deep copy of the model shares that class: give this module one of its own.
        cls = type(owner)
        own = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
        owner.__class__ = type(cls.__name__, cls.__bases__, own)
        parametrize.remove_parametrizations(owner, tensor, leave_parametrized=False)
    replace_modules(model, bases)
