"""Ranges of numbers that a sweep searches: `1e-4..1e-2`."""

from dataclasses import dataclass

from dcft_cli.recipe.source import plain_value


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included."""

    low: float
    high: float

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant: both ends are written as such."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def is_log(self) -> bool:
        """Whether to search on a logarithmic scale: fractions above zero."""
        return not self.is_whole and self.low > 0

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


def parse_range(text: str) -> Range:
    """Read `LOW..HIGH`.

    Raises:
        ValueError: the text is not two numbers, the lower one first.
    """
    low, dots, high = (part.strip() for part in text.partition(".."))
    ends = [plain_value(low), plain_value(high)]
    numbers = [end for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
    if not dots or len(numbers) < 2:
        raise ValueError(f"must be LOW..HIGH, two numbers such as 1e-4..1e-2 (value {text})")
    if numbers[0] >= numbers[1]:
        raise ValueError(f"the first number must be lower than the second (value {text})")
    return Range(*numbers)
