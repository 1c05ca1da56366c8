"""Layers that read the same input, such as Q, K and V: computed together.

Which they are is seen in one forward pass: layers of one module that were always called with one
tensor, one after the other. From then on, while that module is called, the first of them computes
the outputs of all, which wait for the others to be called with that tensor. Where they are called
otherwise, each computes its own.
"""

import weakref
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dcft_cli.adapter.activations import saving
from dcft_cli.adapter.autocast import autocast_dtype

# Those whose outputs meet again in their module: they share a node of the graph, so that nobody
# may go backward through one of them alone.
_ROLES = {"Q", "K", "V", "CROSS_Q", "CROSS_K", "CROSS_V", "FFN_IN"}


class Siblings:
    """Outputs of layers, computed together, that wait for the layers to be called."""

    def __init__(self) -> None:
        self._layers: list[weakref.ref[nn.Module]] = []
        self._open = False
        self._kept: _Kept | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Siblings, ()  # whose copy it is must be told to the copied layers: `Together`

    def introduce(self, layers: Sequence[nn.Module]) -> None:
        """Makes them siblings, in the order in which they are called."""
        # Each knows the others by this, so they must not keep each other alive.
        self._layers = [weakref.ref(layer) for layer in layers]
        for layer in layers:
            layer.siblings = self  # type: ignore[assignment]

    def begin(self, parent: nn.Module, inputs: object) -> None:
        """Hook before the forward pass of the module that the layers are in."""
        if not torch.compiler.is_compiling():
            self._open, self._kept = True, None

    def end(self, parent: nn.Module, inputs: object, outputs: object) -> None:
        """Hook after it: nothing waits any longer."""
        if not torch.compiler.is_compiling():
            self._open, self._kept = False, None

    def of(self, layer: nn.Module) -> list[nn.Module]:
        """All layers, if this one is the first of them and their module is called; else none."""
        layers = [ref() for ref in self._layers] if self._open else []
        if not layers or layers[0] is not layer:
            return []
        return [one for one in layers if one is not None]

    def keep(self, x: Tensor, layers: Sequence[nn.Module], outputs: Sequence[Tensor]) -> None:
        """Has the outputs for x wait for their layers."""
        waiting = {id(layer): y for layer, y in zip(layers, outputs, strict=True)}
        self._kept = _Kept(x, _state(x), waiting)

    def take(self, layer: nn.Module, x: Tensor) -> Tensor | None:
        """What waits for this layer, if it is what the layer would compute."""
        kept = self._kept  # once: another thread may use the model, too
        if kept is None or kept.x is not x or kept.state != _state(x):
            return None
        return kept.waiting.pop(id(layer), None)


class _Kept(NamedTuple):
    x: Tensor
    state: tuple[object, ...]
    waiting: dict[int, Tensor]  # by the id of their layers


def _state(x: Tensor) -> tuple[object, ...]:
    """What a layer's output depends on besides x and weights, and what is done with it."""
    half = autocast_dtype(x.device.type)
    return x._version, x.requires_grad, half, torch.is_grad_enabled(), saving()


class Group(NamedTuple):
    """Layers that read the same input, and the module that they are in."""

    parent: nn.Module
    layers: list[nn.Module]


class Together:
    """Makes siblings of layers, for as long as a model has them."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._siblings = [Siblings() for _ in groups]
        self._introduce()
        self._hooks = []
        for siblings, group in zip(self._siblings, groups, strict=True):
            self._hooks += [
                group.parent.register_forward_pre_hook(siblings.begin),
                group.parent.register_forward_hook(siblings.end, always_call=True),
            ]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        self._introduce()

    def stop(self) -> None:
        """Every layer computes its own from now on."""
        for hook in self._hooks:
            hook.remove()
        for group in self._groups:
            for layer in group.layers:
                layer.siblings = None  # type: ignore[assignment]

    def _introduce(self) -> None:
        for siblings, group in zip(self._siblings, self._groups, strict=True):
            siblings.introduce(group.layers)


Call = tuple[nn.Module, object]  # of a layer, with its input


@contextmanager
def calls(layers: Iterable[nn.Module]) -> Iterator[list[Call]]:
    """Collects what layers are called with."""
    found: list[Call] = []

    def note(layer: nn.Module, inputs: tuple[object, ...]) -> None:
        found.append((layer, inputs[0] if inputs else object()))

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def find_groups(model: nn.Module, found: Iterable[Call]) -> list[Group]:
    """Layers of the same module that were always called with the same tensors, in one order.

    Args:
        model: that they are in.
        found: every call of an adapted layer in a forward pass.
    """
    parents = {child: parent for parent in model.modules() for child in parent.children()}
    runs: dict[Hashable, list[nn.Module]] = defaultdict(list)
    inputs: dict[nn.Module, list[Hashable]] = defaultdict(list)
    for layer, x in found:
        if not {adapter.role for adapter in layer.adapters} <= _ROLES:  # type: ignore[union-attr]
            continue
        version = x._version if isinstance(x, Tensor) and not x.is_inference() else None
        run = id(x), version, parents[layer]
        runs[run].append(layer)
        inputs[layer].append(run)
    alike: dict[tuple[Hashable, ...], list[nn.Module]] = defaultdict(list)
    for layer, its in inputs.items():
        alike[tuple(its)].append(layer)
    return [
        Group(parents[layers[0]], layers)
        for its, layers in alike.items()
        if len(layers) > 1
        and all([layer for layer in runs[run] if layer in layers] == layers for run in its)
    ]
