"""Lists that a text column holds, as pandas, Python, numpy and JSON write them."""

import ast
import json
import re

# The text of an item, in its quotation marks, or a number or constant.
_ITEM = r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|[^\s,'"()\[\]]++"""
# numpy writes its own types as np.str_('a').
_WRAPPED = rf"np\.\w+\((?:{_ITEM})\)|{_ITEM}"
_LIST = re.compile(rf"\[\s*(?:(?:{_WRAPPED})(?:\s*,\s*|\s+|(?=\])))*+\]", re.DOTALL)
_ITEMS = re.compile(rf"np\.\w+\(({_ITEM})\)|({_ITEM})", re.DOTALL)
_CONSTANTS = {"None": None, "null": None, "nan": None}


def written_list(text: str) -> list[object] | None:
    """Return the list that a text is the written form of; None if it is none.

    Items are strings in quotation marks, numbers and constants, separated by commas or, as numpy
    does, by blanks. `[a, b]` without quotation marks is a text like any other, and so is [spam].
    """
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = _items(text)
    return values if isinstance(values, list) else None


def _items(text: str) -> list[object] | None:
    if not _LIST.fullmatch(text):
        return None
    try:
        return [_value(wrapped or item) for wrapped, item in _ITEMS.findall(text[1:-1])]
    except (ValueError, SyntaxError):
        return None


def _value(item: str) -> object:
    """Return the value of one item; raise ValueError or SyntaxError if it is a bare word."""
    if item == "...":  # to Python a constant; in texts, words that were left out
        raise ValueError(item)
    return _CONSTANTS[item] if item in _CONSTANTS else ast.literal_eval(item)
