"""The YAML subset of recipes: mappings, lists and scalars.

Tags, anchors and aliases are rejected, so that values are only strings, numbers, true, false and
null. Plain scalars follow YAML 1.2 rather than PyYAML's 1.1: `5e-4` is a number; `no`, `on`,
`1:30` and `2024-01-01` are strings.
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
# Longer digit strings are names (such as commits), not counts.
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")


class PlainYamlError(ValueError):
    """Text that is not in this subset of YAML; `line` counts from 1."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def plain_value(text: str) -> str | int | float | bool | None:
    """Return the value of an unquoted scalar: null, a bool, a finite number, else the string."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def compose(text: str) -> yaml.Node | None:
    """Parse YAML text into nodes, which have line numbers; None for an empty document.

    Raises:
        PlainYamlError: the text is not YAML, or has tags, anchors or aliases.
    """
    try:
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            _check_plain(event)
        return yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise PlainYamlError(reason, _line(error.problem_mark or error.context_mark)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise PlainYamlError("it contains a control character", line) from None
    except RecursionError:
        raise PlainYamlError("it is nested too deeply", 1) from None


def to_yaml(values: Mapping[str, object]) -> str:
    """Write plain values in their order, so that `compose` reads back the same."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _check_plain(event: yaml.Event) -> None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        reason = "anchors and aliases (& and *) are not supported"
        raise PlainYamlError(reason, _line(event.start_mark))
    if tag := getattr(event, "tag", None):
        reason = f"the tag {tag} is not supported, only plain values are"
        raise PlainYamlError(reason, _line(event.start_mark))


def _line(mark: object) -> int:
    return int(getattr(mark, "line", 0)) + 1


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line, quotes ambiguous strings, and uses no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML also quotes what YAML 1.1 does not read as a string, for other readers.
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
