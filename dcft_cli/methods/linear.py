"""Targets as whole linear layers: what every method but DCFT can change."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from dcft_cli.errors import TargetError
from dcft_cli.methods.method import Method
from dcft_cli.targets.gradients import Loss, find_unreached
from dcft_cli.targets.resolve import Target
from dcft_cli.targets.weights import Matrix


class LinearMethod(Method):
    """A method with a module of its own in the place of every target layer."""

    @abstractmethod
    def detach(self) -> None:
        """Put the plain layers back, as they were."""

    def remove_unreached(self, inputs: Mapping[str, Any], loss: Loss | None = None) -> list[str]:
        """Attach the method again, without the layers that the loss does not depend on.

        Removing single layers is not enough: some methods share values among layers, or divide a
        budget by their number.
        """
        names = list(linear_layers(self.settings.method, self.parts.targets))
        layers = [
            [p for p in self.model.get_submodule(name).parameters() if p.requires_grad]
            for name in names
        ]
        found = find_unreached(self.model, layers, inputs, loss)
        unreached = [name for name, is_unreached in zip(names, found, strict=True) if is_unreached]
        if unreached:
            self.detach()
            targets = tuple(t for t in self.parts.targets if t.matrix.path not in unreached)
            self.attach(self.model, replace(self.parts, targets=targets))
        return unreached


def linear_layers(method: str, targets: Sequence[Target]) -> dict[str, Matrix]:
    """Return the linear layers that targets make up, by name, in the model's order.

    Args:
        method: its name, for messages.

    Raises:
        TargetError: a target is a part of a layer, a stack of matrices, a weight that is read
            rather than called, or shared by several layers.
    """
    layers: dict[str, Matrix] = {}
    # Blocks of one weight follow each other.
    for _, group in groupby(targets, key=lambda target: id(target.matrix.parameter)):
        blocks = list(group)
        matrix = blocks[0].matrix
        covered = sum(target.out_features for target in blocks)
        problem = ""
        if matrix.count is not None:
            problem = "is a stack of matrices"
        elif not matrix.called:
            problem = "is read by the code around it, not called as a layer"
        elif len(blocks[0].matrices) > 1:
            problem = "is shared by several layers"
        elif covered < matrix.out_features:
            roles = ", ".join(target.role for target in blocks)
            problem = f"computes more than {roles}, in one layer"
        if problem:
            raise TargetError(
                f"{method} cannot adapt {blocks[0].name}: the weight {problem}.",
                "Leave it out of adapter.targets, or use adapter.method=dcft.",
            )
        layers[matrix.path] = matrix
    return layers
