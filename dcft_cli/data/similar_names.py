"""Class names that may mean the same class: spelled differently, or mistyped."""

import re
import unicodedata
from collections.abc import Mapping
from itertools import combinations

MIN_LETTERS = 5
"""Length of a word from which on one wrong letter counts as a typing error."""

RARE = 0.1
"""Share of the rows of another class below which a class may be a mistyped name of it."""

_SEPARATORS = re.compile(r"(?<=\w)[\s_-]+(?=\w)")
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")


def similar_names(rows: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return pairs of class names that may mean one class, the rarer name first.

    Two names are similar if they differ only in case, in Unicode form, in invisible characters, in
    blanks, underscores and hyphens between words, or in marks at the end; or if one is rare and has
    one letter wrong (missing, added, changed, or swapped with the next) in a long word, except at
    its beginning.
    So `B-PER` and `I-PER`, `class 1` and `class 2`, `typical` and `atypical` are not similar.

    Args:
        rows: number of rows by class name.
    """
    words = {name: _key(name).split(" ") for name in rows}
    # Words with one letter wrong are equal without one of their letters, so that names that may be
    # similar meet in small groups.
    groups: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for name in sorted(rows, key=lambda name: (rows[name], name)):
        groups.setdefault((-1, tuple(words[name])), []).append(name)
        for n, word in enumerate(words[name]):
            if word.isalpha() and len(word) >= MIN_LETTERS - 1:
                for less in {word, *(word[:i] + word[i + 1 :] for i in range(1, len(word)))}:
                    key = (n, (*words[name][:n], less, *words[name][n + 1 :]))
                    groups.setdefault(key, []).append(name)
    return sorted(
        {
            (rare, frequent)
            for (n, _), group in groups.items()
            for rare, frequent in combinations(group, 2)
            if words[rare] == words[frequent]
            or (
                rows[rare] <= RARE * rows[frequent]
                and _is_mistyped(words[rare][n], words[frequent][n])
            )
        },
        key=lambda pair: [(rows[name], name) for name in pair],
    )


def _key(name: str) -> str:
    if _NUMBER.fullmatch(name):
        return repr(float(name))
    visible = "".join(c for c in name if unicodedata.category(c) != "Cf")  # zero width space
    text = unicodedata.normalize("NFKC", visible).casefold().strip()
    return _SEPARATORS.sub(" ", text).rstrip(" .,;:!") or text


def _is_mistyped(word: str, other: str) -> bool:
    """Return whether two words differ in one letter, and one of them is long."""
    long = max(len(word), len(other)) >= MIN_LETTERS
    return long and abs(len(word) - len(other)) <= 1 and _one_edit(word, other)


def _one_edit(a: str, b: str) -> bool:
    """Return whether one insertion, deletion, change or swap of neighbors makes `a` into `b`."""
    start = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    a, b = a[start:], b[start:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
