"""A validation set cut from the training data, with related rows kept together."""

import hashlib
from collections.abc import Sequence

from dcft_cli.data.rows import RowSet
from dcft_cli.errors import DataError
from dcft_cli.recipe.schema import HoldoutSection


def hold_out(
    rows: RowSet, column: str, class_column: str | None, holdout: HoldoutSection
) -> tuple[list[int], list[int]]:
    """Return the indices of training and of validation rows, each in order.

    Rows with the same group key, which is the text in `column` in lower case (or its first
    `group_prefix` characters), go to the same side. A hash of the key and the seed gives each
    group a place between 0 and 1; those below `fraction` are held out. So a group stays where it
    is when rows are added or reordered.

    With classes, the groups of each class (that of a group's first row) that come first are held
    out, as many as make `fraction` of its groups, rounded: at least one, and not all, if there are
    two. Then adding rows to a class moves at most the groups next to the border.

    Args:
        class_column: of class numbers; None if the rows have none.

    Raises:
        DataError: one side would be empty.
    """
    groups: dict[str, list[int]] = {}
    for index, text in enumerate(rows.dataset[column][:]):
        groups.setdefault(text.lower()[: holdout.group_prefix], []).append(index)
    places = {key: _place(holdout.seed, key) for key in groups}
    if class_column is None:
        held_out = {key for key, place in places.items() if place < holdout.fraction}
    else:
        held_out = set()
        classes = rows.dataset[class_column][:]
        by_class: dict[int, list[str]] = {}
        for key, members in groups.items():
            by_class.setdefault(classes[members[0]], []).append(key)
        for keys in by_class.values():
            held_out |= set(sorted(keys, key=places.__getitem__)[: _share(keys, holdout.fraction)])
    validation = sorted(index for key in held_out for index in groups[key])
    train = sorted(index for key in groups.keys() - held_out for index in groups[key])
    if not (train and validation):
        empty = "validation" if train else "training"
        raise DataError(
            f"{rows.source}: data.holdout leaves no {empty} rows out of {len(rows.dataset):,}.",
            "Change data.holdout.fraction, data.holdout.seed or data.holdout.group_prefix.",
        )
    return train, validation


def _share(keys: Sequence[str], fraction: float) -> int:
    """Return how many groups of a class are held out."""
    return min(max(1, round(fraction * len(keys))), len(keys) - 1)


def _place(seed: int, key: str) -> float:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64  # in [0, 1)
