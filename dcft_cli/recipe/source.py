"""A recipe as written, in YAML and `KEY=VALUE` overrides, with the place of each value.

The YAML has mappings, lists and scalars. Tags, anchors and aliases are rejected, so that values
are only strings, numbers, true, false and null. Plain scalars follow YAML 1.2 rather than PyYAML's
1.1: `5e-4` is a number; `no`, `on`, `1:30` and `2024-01-01` are strings.
"""

import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from dcft_cli.errors import RecipeError
from dcft_cli.recipe.methods import METHODS

KeyPath = tuple[str | int, ...]

# An override of one key removes others.
_REMOVES: dict[str, tuple[str, ...]] = {
    "name": ("revision", "trust_remote_code"),  # of the model that was named before
    "validation": ("holdout",),
    "holdout": ("validation",),
    "warmup_steps": ("warmup_ratio",),
    "warmup_ratio": ("warmup_steps",),
}
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_MAX_DEPTH = 32  # of brackets and levels; PyYAML's time grows with the square of the depth
# Longer digit strings are names (such as commits), not counts.
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_QUOTE_HINT = "Text with special characters (* & ! % @ { [ or a colon and a blank) needs quotes."
_TAB_INDENT = re.compile(r" *\t")
_TAB_HINT = "Replace tabs with spaces, two for each level of indentation."
_SECTIONS_HINT = (
    "A recipe is a YAML mapping with the sections model, task, data, adapter and training; "
    "recipes/quickstart.yaml is a short one to start from."
)


class Place(NamedTuple):
    """Where a value was written; sorts in reading order: the file, then the overrides."""

    override: int
    line: int
    label: str


class PlainYamlError(ValueError):
    """Text that is not in this subset of YAML; `line` counts from 1."""

    def __init__(self, reason: str, line: int, hint: str = _QUOTE_HINT) -> None:
        super().__init__(f"not valid YAML: {reason}")
        self.line = line
        self.hint = hint


# Settings of the adapter section that stay with another method, if it has them.
_OF_ANY_METHOD = frozenset({"method", "targets", "file_dtype"})


@dataclass
class Source:
    """A recipe as written, with the mistakes found in reading it.

    Attributes:
        origin: the recipe's name in messages, usually its path.
        values: sections by name.
        places: of each key, as far as known.
    """

    origin: str
    values: dict[str, Any]
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[tuple[Place, str]] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """Return where the value at `path`, or the nearest section around it, was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return Place(0, 0, self.origin)

    def override(self, arguments: Sequence[str]) -> None:
        """Apply `KEY=VALUE` arguments in order; invalid ones become problems.

        KEY is dotted; missing sections are created. A VALUE that starts with a bracket, a brace
        or a quotation mark is YAML. Any other is one plain scalar, so that paths and patterns
        (`C:\\x`, `*.query`, `a: b`) need no quotes. An override of either of `data.validation` and
        `data.holdout`, or of `training.warmup_steps` and `training.warmup_ratio`, removes the
        other; one of `model.name` removes `model.revision` and `model.trust_remote_code`; another
        `adapter.method` removes the settings and learning rates that were chosen for the recipe's
        own.
        """
        method = self._method()
        given = {_split(argument)[0][:2] for argument in arguments}
        skipped = 0
        for number, argument in enumerate(arguments, 1):
            if skipped:
                skipped -= 1
                continue
            place = Place(number, 0, f'override "{argument}"')
            if skipped := _pieces_after(arguments[number - 1 :]):
                whole = " ".join(arguments[number - 1 : number + skipped])
                problem = f'the shell split this value at its spaces; quote it: "{whole}"'
                self.problems.append((place, problem))
                continue
            path, text = _split(argument)
            try:
                value = self._put(path, text, place)
            except ValueError as error:
                self.problems.append((place, str(error)))
                continue
            for other in _REMOVES.get(path[1], ()) if path[1:] and value is not None else ():
                self._remove((path[0], other), unless=given)
        if self._method() != method:
            self._remove_settings_of_method(given)

    def _method(self) -> object:
        adapter = self.values.get("adapter")
        return adapter.get("method", "dcft") if isinstance(adapter, dict) else "dcft"

    def _remove_settings_of_method(self, given: Collection[tuple[str, ...]]) -> None:
        """Remove what a recipe sets for its method, unless it was `given` as an override."""
        if ("adapter",) not in given:
            method = METHODS.get(str(self._method()))
            kept = _OF_ANY_METHOD & method.keys if method else _OF_ANY_METHOD
            for key in set(self.values["adapter"]) - kept:
                self._remove(("adapter", key), unless=given)
        for key in ("learning_rate", "head_learning_rate"):
            self._remove(("training", key), unless=given)

    def _remove(self, path: tuple[str, str], unless: Collection[tuple[str, ...]] = ()) -> None:
        section = self.values.get(path[0])
        if isinstance(section, dict) and path not in unless:
            section.pop(path[1], None)
            self._forget(path)

    def _put(self, path: tuple[str, ...], text: str | None, place: Place) -> object:
        """Set and return a value.

        Raises:
            ValueError: the path leads through a value, or the text is not plain YAML.
        """
        if text is None or not all(path):
            raise ValueError("must be KEY=VALUE, such as training.learning_rate=5e-4")
        section = self.values
        for length, key in enumerate(path[:-1], 1):
            if section.get(key) is None:
                section[key] = {}
                self.places.setdefault(path[:length], place)
            section = section[key]
            if not isinstance(section, dict):
                where = dotted(path[:length])
                raise ValueError(f"{where}: is not a section (value {show(section)})")
        node = None
        if text.startswith(("[", "{", '"', "'")):
            try:
                node = compose(text)
            except PlainYamlError as error:
                raise ValueError(f"{dotted(path)}: {error}. {_QUOTE_HINT}") from None
        self._forget(path)
        self.places[path] = place
        section[path[-1]] = plain_value(text) if node is None else self.build(node, path, place)
        return section[path[-1]]

    def _forget(self, path: KeyPath) -> None:
        """Remove the places at and below `path`, whose value changes."""
        self.places = {key: at for key, at in self.places.items() if key[: len(path)] != path}

    def build(self, node: yaml.Node, path: KeyPath = (), place: Place | None = None) -> Any:
        """Return the value of a YAML node, and record the places of the keys in it.

        Args:
            path: of the value.
            place: of all keys; None: their lines.
        """
        if isinstance(node, yaml.ScalarNode):
            return node.value if node.style else plain_value(node.value)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(entry, (*path, n), place) for n, entry in enumerate(node.value)]
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            here = place or Place(0, line, f"{self.origin}:{line}")
            if not isinstance(key, str):
                where = dotted(path) or "top level"
                self.problems.append((here, f"{where}: a key must be a string"))
            elif key in values:
                first = self.places[*path, key].line
                note = f" (first on line {first})" if first else ""
                problem = f"{dotted((*path, key))}: given twice{note}"
                self.problems.append((here, problem))
            else:
                self.places[*path, key] = here
                values[key] = self.build(value_node, (*path, key), place)
        return values


def read_source(text: str, origin: str) -> Source:
    """Read the YAML text of a recipe that is called `origin` in messages.

    Raises:
        RecipeError: the text is empty, not plain YAML, or not a mapping.
    """
    try:
        node = compose(text)
    except PlainYamlError as error:
        raise RecipeError(f"{origin}:{error.line}: {error}", error.hint) from None
    if node is None:
        raise RecipeError(f"{origin}: the recipe is empty", _SECTIONS_HINT)
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1
        raise RecipeError(
            f"{origin}:{line}: the recipe is not a mapping of sections", _SECTIONS_HINT
        )
    source = Source(origin, {})
    source.values = source.build(node)
    return source


def compose(text: str) -> yaml.Node | None:
    """Parse YAML text into nodes, which have line numbers; None for an empty document.

    Raises:
        PlainYamlError: the text is not YAML, has tags, anchors or aliases, or is nested too deeply.
    """
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise PlainYamlError("it is nested too deeply", _line(event.start_mark))
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                reason = "anchors and aliases (& and *) are not supported"
                raise PlainYamlError(reason, _line(event.start_mark))
            if tag := getattr(event, "tag", None):
                reason = f"the tag {tag} is not supported, only plain values are"
                raise PlainYamlError(reason, _line(event.start_mark))
        return yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        line = _line(error.problem_mark)
        written = "".join(text.split("\n")[line - 1 : line])
        # PyYAML reports other errors too for a line that starts with a tab.
        if "'\\t'" in (error.problem or "") or _TAB_INDENT.match(written):
            raise PlainYamlError("a tab where only spaces may be", line, _TAB_HINT) from None
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise PlainYamlError(reason, line) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise PlainYamlError("it contains a control character", line) from None


def _line(mark: object) -> int:
    return int(getattr(mark, "line", 0)) + 1


def plain_value(text: str) -> str | int | float | bool | None:
    """Return the value of an unquoted scalar: null, a bool, a finite number, else the string."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def dotted(path: KeyPath) -> str:
    """Return a key path as one string, list entries by number: `adapter.targets[0]`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def show(value: object) -> str:
    """Return a value as a recipe would write it, shortened for a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _pieces_after(arguments: Sequence[str]) -> int:
    """Return how many arguments after the first belong to its value, `[Q, V]` without quotes.

    0 if that value is complete, or never is.
    """
    for pieces in range(len(arguments)):
        _, text = _split(" ".join(arguments[: pieces + 1]))
        if not text or text[0] not in "[{":
            break
        try:
            compose(text)
        except PlainYamlError:
            continue
        return pieces
    return 0


def _split(argument: str) -> tuple[tuple[str, ...], str | None]:
    """Return key path and value of `KEY=VALUE`; the value is None if there is no `=`."""
    key, equals, text = argument.partition("=")
    return tuple(key.strip().split(".")), text.strip() if equals else None
