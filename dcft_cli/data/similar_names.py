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

    Two names are similar if they differ only in case, in Unicode form, in blanks, underscores and
    hyphens between words, or in marks at the end; or if one is rare and has one letter wrong
    (missing, added, changed, or swapped with the next) in a long word, except at its beginning.
    So `B-PER` and `I-PER`, `class 1` and `class 2`, `typical` and `atypical` are not similar.

    Args:
        rows: number of rows by class name.
    """
    keys = {name: _key(name) for name in rows}
    found = []
    for names in combinations(sorted(rows, key=lambda name: (rows[name], name)), 2):
        rare, frequent = names
        is_rare = rows[rare] <= RARE * rows[frequent]
        if keys[rare] == keys[frequent] or (is_rare and _is_mistyped(keys[rare], keys[frequent])):
            found.append(names)
    return found


def _key(name: str) -> str:
    if _NUMBER.fullmatch(name):
        return repr(float(name))
    text = unicodedata.normalize("NFKC", name).casefold().strip()
    return _SEPARATORS.sub(" ", text).rstrip(" .,;:!") or text


def _is_mistyped(name: str, other: str) -> bool:
    """Return whether two names differ in one letter of one long word."""
    if abs(len(name) - len(other)) > 1:
        return False
    pairs = list(zip(name.split(" "), other.split(" "), strict=False))
    different = [(a, b) for a, b in pairs if a != b]
    if name.count(" ") != other.count(" ") or len(different) != 1:
        return False
    ((a, b),) = different
    letters = a.isalpha() and b.isalpha() and max(len(a), len(b)) >= MIN_LETTERS
    return letters and a[0] == b[0] and _one_edit(a, b)


def _one_edit(a: str, b: str) -> bool:
    """Return whether one insertion, deletion, change or swap of neighbors makes `a` into `b`."""
    start = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    a, b = a[start:], b[start:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
