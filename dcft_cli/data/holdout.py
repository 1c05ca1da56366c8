"""A validation set cut from the training data, with related rows kept together."""

import hashlib

from dcft_cli.data.rows import RowSet
from dcft_cli.errors import DataError
from dcft_cli.recipe.schema import HoldoutSection


def hold_out(rows: RowSet, column: str, holdout: HoldoutSection) -> tuple[RowSet, RowSet]:
    """Split `rows` into training and validation rows, each in their old order.

    Rows with the same group key, which is the text in `column` in lower case (or its first
    `group_prefix` characters), go to the same side. The side depends only on a hash of the key
    and the seed, so a group stays where it is when rows are added or reordered.

    Raises:
        DataError: one side would be empty.
    """
    sides: tuple[list[int], list[int]] = ([], [])
    for index, text in enumerate(rows.dataset[column][:]):
        key = text.lower()[: holdout.group_prefix]
        digest = hashlib.sha256(f"{holdout.seed}:{key}".encode()).digest()
        uniform = int.from_bytes(digest[:8], "big") / 2**64  # in [0, 1)
        sides[uniform < holdout.fraction].append(index)
    if not all(sides):
        empty = "training" if not sides[0] else "validation"
        raise DataError(
            f"{rows.source}: data.holdout leaves no {empty} rows out of {len(rows.dataset):,}.",
            "Change data.holdout.fraction, data.holdout.seed or data.holdout.group_prefix.",
        )
    train, validation = (rows.dataset.select(side) for side in sides)
    return (
        RowSet(train, f"{rows.source} (training part)"),
        RowSet(validation, f"{rows.source} (held-out part)"),
    )
