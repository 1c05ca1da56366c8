"""Targets as whole linear layers: what every method but DCFT can change."""

from collections.abc import Sequence
from itertools import groupby

from dcft_cli.errors import TargetError
from dcft_cli.targets.resolve import Target
from dcft_cli.targets.weights import Matrix


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
