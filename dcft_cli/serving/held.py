"""An adapter in memory."""

from collections import defaultdict

import torch
from torch import Tensor, nn

from dcft_cli.adapter_file.contents import AdapterContents
from dcft_cli.serving.layout import as_vector, layout_of


class HeldAdapter(nn.Module):
    """The factors of an adapter as one vector, and its head.

    Args:
        contents: of its file.

    Attributes:
        layout: what lies where in `factors`.
        factors: A, B and C of all modules; float32.
        labels: class names in the order of their numbers; empty without classes.
        not_in_base: names of the parameters whose values the file decides, not the base.
    """

    factors: Tensor

    def __init__(self, contents: AdapterContents) -> None:
        super().__init__()
        self.layout = layout_of(contents)
        self.labels = tuple(contents.model["labels"])
        self.not_in_base = contents.not_in_base
        # Buffers follow the model to its device. Their names may not have dots.
        self.register_buffer("factors", as_vector(contents))
        self._head: dict[str, dict[str, str]] = defaultdict(dict)
        for name, tensor in contents.head.items():
            owner, _, parameter = name.rpartition(".")
            self._head[owner][parameter] = name.replace(".", "/")
            self.register_buffer(self._head[owner][parameter], torch.tensor(tensor))

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what decides how a model computes with it; not its values and label count."""
        return self.layout, *self._head

    def head_of(self, module: str) -> dict[str, Tensor]:
        """Return the parameters of a module outside the encoder, by their names in the module."""
        return {name: getattr(self, key) for name, key in self._head.get(module, {}).items()}
