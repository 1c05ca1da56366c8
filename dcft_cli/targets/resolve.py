"""Resolve roles and name patterns to the weights of a model that get an adapter."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

from torch import nn

from dcft_cli.errors import TargetError
from dcft_cli.targets.roles import GROUPS, ROLES, Block, blocks_of, members
from dcft_cli.targets.weights import Matrix, find_matrices


@dataclass(frozen=True)
class Target:
    """A weight, or a block of its rows, that gets an adapter.

    Attributes:
        name: of the layer; with the role at its end where it is a block of rows.
        role: what it does; roles that cannot be separated are joined, as in "Q+K+V".
        matrices: the weight; more than one where layers share it.
        rows: range [start, end) of the weight's rows; None: all.
    """

    name: str
    role: str
    matrices: tuple[Matrix, ...]
    rows: tuple[int, int] | None = None

    @property
    def matrix(self) -> Matrix:
        """Return the weight at its first place in the model."""
        return self.matrices[0]

    @property
    def out_features(self) -> int:
        """Return the number of adapted rows."""
        return self.matrix.out_features if self.rows is None else self.rows[1] - self.rows[0]

    @property
    def in_features(self) -> int:
        """Return the number of columns."""
        return self.matrix.in_features

    @property
    def layout(self) -> tuple[str, ...]:
        """Return how the weight differs from that of a linear layer (docs/architectures.md)."""
        matrix = self.matrix
        marks = {
            "rows": self.rows is not None,
            "together": len(members(self.role)) > 1,
            "transposed": matrix.transposed,
            "stack": matrix.count is not None,
            "read": not matrix.called,
            "shared": len(self.matrices) > 1,
        }
        return tuple(mark for mark, holds in marks.items() if holds)


def find_roles(model: nn.Module, *, exclude: Collection[str] = ()) -> list[Target]:
    """Return every weight or block of rows that has a role, in the model's order.

    Args:
        model: any module; may be on the meta device.
        exclude: names of parameters that are trained themselves (the task head's).
    """
    matrices = _matrices(model, exclude)
    places = [(m, block) for m in matrices.values() for block in blocks_of(m, model, matrices)]
    return _grouped(places)


def find_weights(model: nn.Module) -> dict[str, tuple[Matrix, ...]]:
    """Return every weight by its full name, and all its places in the model."""
    matrices = find_matrices(model)
    sharing: dict[int, list[Matrix]] = {}
    for matrix in matrices:
        sharing.setdefault(id(matrix.parameter), []).append(matrix)
    return {m.parameter_name: tuple(sharing[id(m.parameter)]) for m in matrices}


def find_targets(
    model: nn.Module, targets: Sequence[str], *, exclude: Collection[str] = ()
) -> list[Target]:
    """Find the weights that `targets` name, in the model's order.

    Args:
        model: any module; may be on the meta device.
        targets: roles, or patterns of layer names with `*` and `?` (`*.attn.qkv`), matched
            against the whole dotted name or its end, as in `q_proj`.
        exclude: names of parameters that are trained themselves; layers that own one of them
            (the task head's) are no targets.

    Raises:
        TargetError: an entry of `targets` matches nothing, names a part of a projection
            that cannot be separated, or a weight that a layer outside the targets shares.
    """
    matrices = _matrices(model, exclude)
    blocks = {name: blocks_of(matrix, model, matrices) for name, matrix in matrices.items()}
    known = {role for found in blocks.values() for block in found for role in members(block.role)}
    names = {*matrices, *(_name(name, b) for name, found in blocks.items() for b in found)}
    wanted: set[str] = set()
    patterns = []
    missed = []
    for target in targets:
        if target in ROLES:
            roles = GROUPS.get(target, (target,))
            wanted.update(roles)
            # Each half of a group must be there: an FFN of one layer is not the FFN meant.
            missed += [role for role in roles if role not in known]
        else:
            patterns.append(target)
            missed += [] if any(_matches(name, target) for name in names) else [target]
    if missed:
        raise TargetError(
            f"No layer for the target {_listed(missed)}. "
            f"The model ({type(model).__name__}) has:\n{_overview(matrices, blocks)}",
            f"Targets are roles ({', '.join(ROLES)}) or patterns of the names above; "
            "the end of a name is enough.",
        )
    places: list[tuple[Matrix, Block]] = []
    for name, matrix in matrices.items():
        if named := [pattern for pattern in patterns if _matches(name, pattern)]:
            role = "+".join(block.role for block in blocks[name])
            places.append((matrix, Block(role or named[0])))  # the whole weight, not its blocks
        else:
            places += [
                (matrix, block)
                for block in blocks[name]
                if any(_matches(_name(name, block), pattern) for pattern in patterns)
                or _is_wanted(name, block, wanted)
            ]
    found = _grouped(places)
    _refuse_shared(model, found)
    return found


def _is_wanted(name: str, block: Block, wanted: Collection[str]) -> bool:
    roles = members(block.role)
    left_out = [role for role in roles if role not in wanted]
    if left_out and len(left_out) < len(roles):
        raise TargetError(
            f"{name} computes {' and '.join(roles)} together, interleaved or compressed: "
            f"they cannot be adapted without {' and '.join(left_out)}.",
            f"Put {', '.join(roles)} into the targets together, or none of them.",
        )
    return not left_out


def _matrices(model: nn.Module, exclude: Collection[str]) -> dict[str, Matrix]:
    return {m.name: m for m in find_matrices(model) if m.parameter_name not in exclude}


def _name(name: str, block: Block) -> str:
    return name if block.rows is None else f"{name}.{block.role}"


def _grouped(places: Iterable[tuple[Matrix, Block]]) -> list[Target]:
    """Return one target for each block of each weight, however many layers share it."""
    groups: dict[tuple[int, tuple[int, int] | None], list[tuple[Matrix, Block]]] = {}
    for matrix, block in places:
        groups.setdefault((id(matrix.parameter), block.rows), []).append((matrix, block))
    targets = []
    for (_, rows), group in groups.items():
        first, block = group[0]
        matrices = tuple(matrix for matrix, _ in group)
        targets.append(Target(_name(first.name, block), block.role, matrices, rows))
    return targets


def _refuse_shared(model: nn.Module, targets: Collection[Target]) -> None:
    """Raise TargetError if a layer outside the targets shares a weight with one of them."""
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for tensor, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(f"{path}.{tensor}".removeprefix("."))
    for target in targets:
        ours = {matrix.parameter_name for matrix in target.matrices}
        if others := [n for n in owners[id(target.matrix.parameter)] if n not in ours]:
            raise TargetError(
                f"The weight of {target.name} is shared: it is {', '.join(others)} too.",
                "Choose targets that leave it out, or name all of them: an adapter there would "
                "change the others.",
            )


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names))


def _overview(matrices: dict[str, Matrix], blocks: dict[str, list[Block]]) -> str:
    """List the layers, one line for all that only differ in numbers."""
    rows = [
        (general_name(name), matrix.out_features, matrix.in_features)
        for name, matrix in matrices.items()
        if matrix.called or blocks[name]
    ]
    lines = [
        f"  {name}  {out} x {into}" + (f"  ({count} layers)" if count > 1 else "")
        for (name, out, into), count in ((row, len([*same])) for row, same in groupby(sorted(rows)))
    ]
    return "\n".join(lines) or "  no linear layers"


def general_name(name: str) -> str:
    """Return a layer's dotted name with `*` for the numbers in it."""
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name)
