"""Layers that read the same input, such as Q, K and V: computed together.

Which they are is seen in one forward pass: layers of the same module that are always called with
one tensor, one after the other. From then on the first of them computes the outputs of all, which
wait for the others to be called with that tensor. Where they are called otherwise, each computes
its own.
"""

import weakref
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dcft_cli.adapter.activations import saving


class Siblings:
    """Outputs of layers, computed together, that wait for the layers to be called.

    Args:
        layers: in the order in which they are called.
    """

    def __init__(self, layers: Sequence[nn.Module] = ()) -> None:
        # A layer knows its siblings, so they must not keep each other alive.
        self._layers = [weakref.ref(layer) for layer in layers]
        self._kept: _Kept | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Siblings, ()  # a copy of a layer has other siblings, or none

    def of(self, layer: nn.Module) -> list[nn.Module]:
        """All layers, if this one is the first of them; none otherwise."""
        layers = [ref() for ref in self._layers]
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
        y = kept.waiting.pop(id(layer), None)
        if not kept.waiting:
            self.clear()
        return y

    def clear(self) -> None:
        """Lets go of what still waits."""
        self._kept = None


class _Kept(NamedTuple):
    x: Tensor
    state: tuple[object, ...]
    waiting: dict[int, Tensor]  # by the id of their layers


def _state(x: Tensor) -> tuple[object, ...]:
    """What a layer's output depends on besides x and weights, and what is done with it."""
    kind = x.device.type
    half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return x._version, half, torch.is_grad_enabled(), saving()


class Together:
    """Makes siblings of layers, for as long as the model has them.

    Args:
        model: that the layers are in.
        groups: as `find_groups` has them.
    """

    def __init__(self, model: nn.Module, groups: Sequence[Sequence[nn.Module]]) -> None:
        self._groups = groups
        self._introduce()
        self._hook = model.register_forward_hook(self._clear, always_call=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        self._introduce()

    def stop(self) -> None:
        """Every layer computes its own from now on."""
        self._hook.remove()
        for layer in chain(*self._groups):
            layer.siblings = None  # type: ignore[assignment]

    def _introduce(self) -> None:
        self._siblings = [Siblings(group) for group in self._groups]
        for siblings, group in zip(self._siblings, self._groups, strict=True):
            for layer in group:
                layer.siblings = siblings  # type: ignore[assignment]

    def _clear(self, model: nn.Module, inputs: object, outputs: object) -> None:
        if not torch.compiler.is_compiling():
            for siblings in self._siblings:
                siblings.clear()


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


def find_groups(model: nn.Module, found: Iterable[Call]) -> list[list[nn.Module]]:
    """Layers of the same module that were always called with the same tensors, in one order.

    Args:
        model: that they are in.
        found: every call of a layer in a forward pass.
    """
    parents = {child: parent for parent in model.modules() for child in parent.children()}
    runs: dict[Hashable, list[nn.Module]] = defaultdict(list)
    inputs: dict[nn.Module, list[Hashable]] = defaultdict(list)
    for layer, x in found:
        run = id(x), x._version if isinstance(x, Tensor) else None, parents[layer]
        runs[run].append(layer)
        inputs[layer].append(run)
    alike: dict[tuple[Hashable, ...], list[nn.Module]] = defaultdict(list)
    for layer, its in inputs.items():
        alike[tuple(its)].append(layer)
    return [
        group
        for its, group in alike.items()
        if len(group) > 1
        and all([layer for layer in runs[run] if layer in group] == group for run in its)
    ]
