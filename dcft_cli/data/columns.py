"""What a column of unknown data seems to hold: texts, names of classes, numbers, lists."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Any, Self

from dcft_cli.data.rows import Rows, format_value

_ID = re.compile(r"(id|idx|index|uuid|guid|row|unnamed: ?0)?|.*[_ ]id", re.IGNORECASE)
SEPARATORS = "|;,"
"""Characters that usually separate the labels in a text."""
_LONG_NAME = 40


@dataclass(frozen=True, eq=False)
class Column:
    """A column and its values, without missing and empty ones; true and false are texts."""

    name: str
    values: Sequence[Any]

    @classmethod
    def of(cls, rows: Rows, name: str) -> Self:
        """Return the column `name` of rows, which must have it."""
        values = (record.get(name) for record in rows.records)
        named = (str(value).lower() if isinstance(value, bool) else value for value in values)
        return cls(name, [v for v in named if v is not None and str(v).strip()])

    @cached_property
    def is_lists(self) -> bool:
        """Whether the values are lists, or are written as such."""
        return self._all(_is_list)

    @cached_property
    def is_words(self) -> bool:
        """Whether the values are lists of texts."""
        return bool(self.lengths) and all(isinstance(w, str) for v in self.values for w in v)

    @cached_property
    def lengths(self) -> list[int]:
        """The numbers of entries of lists; none for other values, or lists written as text."""
        is_lists = self._all(lambda value: isinstance(value, list))
        return [len(value) for value in self.values] if is_lists else []

    @cached_property
    def is_answers(self) -> bool:
        """Whether the values are answers in the form of SQuAD."""
        return self._all(lambda value: isinstance(value, Mapping) and "answer_start" in value)

    @cached_property
    def numbers(self) -> Sequence[float]:
        """The values as numbers; empty if one of them is none."""
        numbers = [finite_number(value) for value in self.values]
        return [] if None in numbers else [n for n in numbers if n is not None]

    @cached_property
    def is_text(self) -> bool:
        """Whether the values are texts, other than numbers and lists."""
        return self._all(lambda value: isinstance(value, str)) and not (
            self.numbers or self.is_lists
        )

    @cached_property
    def distinct(self) -> int:
        """The number of different values."""
        return len({repr(value) for value in self.values})

    @cached_property
    def repeats(self) -> bool:
        """Whether values occur twice or more on average, as those of classes do."""
        return 2 <= self.distinct <= len(self.values) / 2

    @cached_property
    def length(self) -> float:
        """The mean number of characters."""
        return mean(len(value) for value in self.values)

    @cached_property
    def is_id(self) -> bool:
        """Whether the column numbers the rows, by its name or its values."""
        whole = sorted(self.numbers)
        counts = len(whole) > 2 and whole == list(range(int(whole[0]), int(whole[0]) + len(whole)))
        return bool(_ID.fullmatch(self.name)) or counts

    @cached_property
    def is_prose(self) -> bool:
        """Whether the values are texts of several words, rather than names of classes."""
        # Repeated texts are names of classes unless they are longer than such names.
        if not self.is_text or (self.repeats and self.length < _LONG_NAME):
            return False
        return self.has_letters and mean(len(value.split()) for value in self.values) >= 2

    @cached_property
    def has_letters(self) -> bool:
        """Whether most values contain letters, unlike dates and phone numbers."""
        found = sum(bool(re.search(r"[^\W\d_]", value)) for value in self.values)
        return found > len(self.values) / 2

    @cached_property
    def is_binary(self) -> bool:
        """Whether the values are 0 and 1."""
        return set(self.numbers) == {0, 1}

    @cached_property
    def separator(self) -> str:
        """The character between several labels in one text; "" if there seems to be none."""
        wholes = set(self.values)
        for separator in SEPARATORS:
            pieces = {piece.strip() for whole in wholes for piece in whole.split(separator)}
            if any(separator in whole for whole in wholes) and len(pieces) <= len(wholes):
                return separator
        return ""

    def describe(self) -> str:
        """Return what the column holds, for a reader."""
        if not self.values:
            return "empty"
        if self.distinct == 1:
            return f"always {format_value(self.values[0])}"
        if self.lengths:
            entries = {repr(entry) for value in self.values for entry in value}
            return f"lists with {len(entries):,} different entries"
        if self.numbers:
            return f"{self.distinct:,} different numbers"
        if self.is_text and not self.repeats:
            return f"texts of {self.length:.0f} characters on average"
        return f"{self.distinct:,} different values"

    def _all(self, condition: Callable[[Any], bool]) -> bool:
        return bool(self.values) and all(map(condition, self.values))


def _is_list(value: object) -> bool:
    """Return whether a value is a list, or a text in brackets: [a, b] will need quotation marks."""
    brackets = isinstance(value, str) and value.startswith("[") and value.endswith("]")
    return brackets or isinstance(value, list)


def finite_number(value: object) -> float | None:
    """Return a number, or a text that is one, as a float; None for other values."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and "_" in value:  # Python reads 1_5 as 15
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
