"""The YAML of recipes: mappings, lists and scalars, and nothing else of the language.

Tags, anchors and aliases are refused, so reading makes no object but text, numbers, true,
false and null. Plain scalars follow YAML 1.2 rather than PyYAML's 1.1: `5e-4` is a number,
while `no`, `on`, `1:30` and `2024-01-01` are text.
"""

import math
import re
from collections.abc import Mapping

import yaml

_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# Longer runs of digits are names (of a commit, say), not counts.
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")


class PlainYamlError(ValueError):
    """Text that is not YAML of this kind: `reason` in words, `line` counted from 1."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def plain_value(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar: null, true or false, a finite number, else the text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def compose(text: str) -> yaml.Node | None:
    """Parses YAML text into nodes, which know their lines; None for an empty document.

    Raises:
        PlainYamlError: the text is not YAML, or has tags, anchors or aliases.
    """
    try:
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            _refuse_more_than_plain(event)
        return yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise PlainYamlError(reason, _line(error.problem_mark or error.context_mark)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise PlainYamlError("it holds a control character", line) from None
    except RecursionError:
        raise PlainYamlError("it is nested too deeply", 1) from None


def to_yaml(values: Mapping[str, object]) -> str:
    """Writes plain values, keys in their order, so that `compose` reads back the same."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _refuse_more_than_plain(event: yaml.Event) -> None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        reason = "anchors and aliases (& and *) are refused"
        raise PlainYamlError(reason, _line(event.start_mark))
    if tag := getattr(event, "tag", None):
        reason = f"the tag {tag} is refused, a recipe holds plain values only"
        raise PlainYamlError(reason, _line(event.start_mark))


def _line(mark: object) -> int:
    return int(getattr(mark, "line", 0)) + 1


class _Dumper(yaml.SafeDumper):
    """Lists on one line; quotes around text that would read as anything else; no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # What YAML 1.1 takes for something else than text is quoted anyway, for other readers.
    quotes = None if plain_value(text) == text and text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=quotes)


def _write_number(dumper: _Dumper, number: float) -> yaml.ScalarNode:
    if number.is_integer() and abs(number) < 1e15:
        return dumper.represent_int(int(number))
    return dumper.represent_float(number)


def _write_list(dumper: _Dumper, entries: list[object]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", entries, flow_style=True)


_Dumper.add_representer(str, _write_text)
_Dumper.add_representer(float, _write_number)
_Dumper.add_representer(list, _write_list)
