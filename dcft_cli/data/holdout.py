"""A validation set cut from the training data, with related rows kept together."""

import hashlib
import unicodedata
from collections.abc import Sequence

from dcft_cli.data.rows import RowSet
from dcft_cli.errors import DataError
from dcft_cli.recipe.schema import HoldoutSection


def hold_out(
    rows: RowSet, column: str, class_column: str | None, holdout: HoldoutSection
) -> tuple[list[int], list[int]]:
    """Return the indices of training and of validation rows, each in order.

    Rows with the same group key, which is the normal form of the text in `column` (or its first
    `group_prefix` characters), go to the same side. A hash of the key and the seed gives each
    group a place. Those that come first are held out, as many as bring the held-out rows nearest to
    `fraction`: at least one group, and not all. So few groups change sides when rows are added.

    With classes, this holds for the groups of each class (that of a group's first row); the only
    group of a class is not held out.

    Args:
        class_column: of class numbers; None if the rows have none.

    Raises:
        DataError: no rows would be held out.
    """
    groups: dict[str, list[int]] = {}
    for index, text in enumerate(rows.dataset[column][:]):
        groups.setdefault(normal_form(text)[: holdout.group_prefix], []).append(index)
    classes = [0] * len(rows.dataset) if class_column is None else rows.dataset[class_column][:]
    by_class: dict[int, list[list[int]]] = {}
    for key in sorted(groups, key=lambda key: _place(holdout.seed, key)):
        by_class.setdefault(classes[groups[key][0]], []).append(groups[key])
    held_out = {
        index
        for members in by_class.values()
        for group in _first_groups(members, holdout.fraction)
        for index in group
    }
    if not held_out:
        if holdout.group_prefix:
            problem = "Rows that belong together stay on one side: change data.holdout.group_prefix"
        else:
            who = "All rows have" if class_column is None else "Each class has"
            problem = f"{who} only one text: add rows"
        raise DataError(
            f"{rows.source}: data.holdout leaves no validation rows out of {len(rows.dataset):,}.",
            f"{problem}, or name other rows with data.validation.",
        )
    return [n for n in range(len(rows.dataset)) if n not in held_out], sorted(held_out)


def normal_form(text: str) -> str:
    """Return what texts have in common that differ in case, white space or Unicode form only."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def _first_groups(groups: Sequence[Sequence[int]], fraction: float) -> list[Sequence[int]]:
    """Return the first groups, as many as bring their rows nearest to `fraction` of all.

    A group that would lead farther past `fraction` than it starts below is left out.

    Args:
        groups: rows of each group, in the order of their places.
    """
    if len(groups) < 2:
        return []
    target = fraction * sum(map(len, groups))
    chosen: list[Sequence[int]] = []
    rows = 0
    for group in groups:
        if abs(rows + len(group) - target) <= abs(rows - target):
            chosen.append(group)
            rows += len(group)
    smallest = min(groups, key=len)
    if len(chosen) == len(groups):
        chosen.remove(smallest)
    return chosen or [smallest]


def _place(seed: int, key: str) -> float:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64  # in [0, 1)
