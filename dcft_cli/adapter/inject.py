"""Adapters in a model: freeze, insert, list, remove, fold."""

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, TypeVar

from torch import nn
from torch.nn.utils import parametrize

from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter.layer import Carrier, DCFTLinear, DCFTWeight
from dcft_cli.adapter.reachability import reach
from dcft_cli.adapter.shared import linear_layers, share_work
from dcft_cli.adapter.siblings import calls, find_groups
from dcft_cli.errors import ModelError, TargetError
from dcft_cli.targets.example import example_of
from dcft_cli.targets.head import outside_encoder
from dcft_cli.targets.resolve import Target, find_targets

M = TypeVar("M", bound=nn.Module)
_FROZEN = "_dcft_frozen"  # attribute of an adapted model: names of the parameters frozen by us
# Of transformers' models; and whether it was us who asked for it.
_NEED_GRADIENTS, _NO_GRADIENTS = "enable_input_require_grads", "disable_input_require_grads"
_ASKED_FOR_GRADIENTS = "_dcft_asked_for_gradients"


def inject(
    model: M,
    config: DCFTConfig,
    *,
    head: Iterable[str] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> M:
    """Freezes a model and inserts a DCFT adapter at every target, in place.

    Layers that the forward pass never reads get none, and a warning names them.

    Args:
        model: any module.
        config: what to insert where.
        head: names of the parameters to train besides the adapters. None: all that lie outside
            the pretrained encoder of a transformers model (its task head), nothing in any other
            module. Exact names come from `from_pretrained(..., output_loading_info=True)`:
            its "missing_keys".
        inputs: of one forward pass, to find out which layers are reached. None: a few token ids,
            for a model that takes them.

    Returns:
        The same model.

    Raises:
        TargetError: a target matches no layer, the forward pass reaches none of them, or the
            model has adapters already.
        ModelError: a name in `head` is no parameter of the model.
    """
    names = outside_encoder(model) if head is None else set(head)
    if unknown := sorted(names - {name for name, _ in model.named_parameters()}):
        raise ModelError(f"The model has no parameter called {', '.join(unknown)}.")
    insert(model, find_targets(model, config.targets, exclude=names), config, head=names)
    left_out: list[str] = []
    example = example_of(model) if inputs is None else inputs
    try:
        left_out = [] if example is None else leave_out_unreached(model, example)
    except Exception as error:
        if inputs is not None or isinstance(error, TargetError):
            remove_adapters(model)
            raise
        # A model that wants more than token ids says so in its own way.
        warnings.warn(
            f"Whether {type(model).__name__} reaches every adapter was not found out: its forward "
            f"pass fails on token ids alone ({type(error).__name__}: {error}). Give inject() the "
            "`inputs` of one pass.",
            stacklevel=2,
        )
    if left_out:
        warnings.warn(
            f"No adapter in {len(left_out)} layers that {type(model).__name__} never reaches: "
            f"{', '.join(left_out)}.",
            stacklevel=2,
        )
    return model


def leave_out_unreached(model: nn.Module, inputs: Mapping[str, Any]) -> list[str]:
    """Takes out the adapters that the loss does not depend on: they would learn nothing.

    Args:
        model: a model with adapters.
        inputs: of one forward pass.

    Returns:
        Their names; none where no adapter has a gradient (a task head that starts at zero): then
        nothing can be told.

    Raises:
        TargetError: no adapter is in the graph of the loss.
    """
    adapters = list(adapter_layers(model).values())
    with calls(linear_layers(model)) as called:
        found = reach(model, adapters, inputs)
        if not any(reached is not None for reached in found) and hasattr(model, _NEED_GRADIENTS):
            # Layers that go backward by themselves (Reformer's) do so where their input needs it.
            getattr(model, _NEED_GRADIENTS)()
            setattr(model, _ASKED_FOR_GRADIENTS, True)
            found = reach(model, adapters, inputs)
    if not any(reached is not None for reached in found):
        raise TargetError(
            f"The loss of {type(model).__name__} depends on no adapter: none would learn.",
            "Does its forward pass run without gradients?",
        )
    groups = find_groups(model, called)
    if not any(found):
        share_work(model, groups)
        return []
    dead = [adapter for adapter, reached in zip(adapters, found, strict=True) if not reached]
    carriers = list(_carriers(model))
    for carrier in carriers:
        carrier.adapters = nn.ModuleList(a for a in carrier.adapters if a not in dead)
    _take_out(model, [carrier for carrier in carriers if not len(carrier.adapters)])
    share_work(model, groups)
    return [adapter.name for adapter in dead]


def insert(
    model: nn.Module, targets: Iterable[Target], config: DCFTConfig, *, head: Collection[str]
) -> None:
    """Freezes a model but for `head` and inserts adapters at targets already found."""
    frozen = [n for n, p in model.named_parameters() if p.requires_grad and n not in head]
    setattr(model, _FROZEN, frozen)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in head)
    wrappers: dict[nn.Module, nn.Module] = {}
    # Blocks of one weight stand one after the other.
    for _, blocks in groupby(targets, key=lambda target: id(target.matrix.parameter)):
        group = list(blocks)
        adapters = [DCFTAdapter(t.name, t.role, config, t.matrix, t.rows) for t in group]
        for matrix in group[0].matrices:  # one adapter for all layers that share the weight
            if matrix.called:
                wrappers[matrix.module] = DCFTLinear(matrix, adapters)
            else:
                parametrize.register_parametrization(
                    matrix.module, matrix.tensor, DCFTWeight(matrix, adapters)
                )
    _replace(model, wrappers)
    share_work(model)


def adapter_layers(model: nn.Module) -> dict[str, DCFTAdapter]:
    """The adapters by the name of the layer they belong to, in the model's order."""
    return {m.name: m for m in model.modules() if isinstance(m, DCFTAdapter)}


def head_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained besides the adapters, by name."""
    return {name: p for name, p in base_parameters(model).items() if p.requires_grad}


def base_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters but the adapters', under the names they have in a model without any."""
    ours = {id(p) for adapter in adapter_layers(model).values() for p in adapter.parameters()}
    renamed: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, DCFTLinear):
            renamed |= {
                f"{name}.base.{n}": f"{name}.{n}" for n, _ in module.base.named_parameters()
            }
        elif isinstance(module, DCFTWeight):
            inside = f"parametrizations.{module.matrix.tensor}."
            owner = name.removesuffix(f"{inside}0")  # with its dot, if it has a name
            renamed[f"{owner}{inside}original"] = f"{owner}{module.matrix.tensor}"
    return {renamed.get(n, n): p for n, p in model.named_parameters() if id(p) not in ours}


def remove_adapters(model: M) -> M:
    """Puts the untouched weights back, in place, and unfreezes what injection froze.

    The task head keeps what it has learned.
    """
    _take_out(model, list(_carriers(model)))
    return _thaw(model)


def merge(model: M) -> M:
    """Folds every adapter into its weight, W + dW (Eq. 6), in place; the adapters are gone then.

    Each sum is taken in float64 and rounded once to the weight's own type. A model without
    adapters is left as it is, so merging twice does no harm.

    Raises:
        ModelError: a weight is quantised; nothing is changed then.
    """
    carriers = list(_carriers(model))
    for carrier in carriers:
        if carrier.matrix.is_quantized:
            raise ModelError(
                f"The weight of {carrier.matrix.name} is quantised: nothing can be folded into it.",
                "Load the base model in full precision, load the adapter, and merge that.",
            )
    # Layers that share a weight are folded once.
    for carrier in {id(c.matrix.parameter): c for c in carriers}.values():
        carrier.fold()
    _take_out(model, carriers)
    return _thaw(model)


def _carriers(model: nn.Module) -> Iterator[Carrier]:
    return (module for module in model.modules() if isinstance(module, Carrier))


def _take_out(model: nn.Module, carriers: Iterable[Carrier]) -> None:
    wrapped: dict[nn.Module, nn.Module] = {}
    for carrier in carriers:
        if isinstance(carrier, DCFTLinear):
            wrapped[carrier] = carrier.base
        else:
            module, tensor = carrier.matrix.module, carrier.matrix.tensor
            # A deep copy of the model shares the class that torch made, and loses what it loses.
            made = type(module)
            own = {k: v for k, v in vars(made).items() if k not in ("__dict__", "__weakref__")}
            module.__class__ = type(made.__name__, made.__bases__, own)
            parametrize.remove_parametrizations(module, tensor, leave_parametrized=False)
    _replace(model, wrapped)


def _thaw(model: M) -> M:
    """Lets the parameters learn again that injection froze."""
    share_work(model)
    frozen = set(model.__dict__.pop(_FROZEN, ()))
    if model.__dict__.pop(_ASKED_FOR_GRADIENTS, False):
        getattr(model, _NO_GRADIENTS)()
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(True)
    return model


def _replace(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Puts modules in others' places, wherever the model has them."""
    for parent in list(model.modules()):
        # Children by all their names: a module may stand in several places.
        for name, child in list(parent._modules.items()):
            if child is not None and child in new and parent is not new[child]:
                setattr(parent, name, new[child])
