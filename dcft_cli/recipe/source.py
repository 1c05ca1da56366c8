"""A recipe's values before they are checked, each with its location in the file."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import yaml

from dcft_cli.errors import RecipeError
from dcft_cli.recipe.plain_yaml import PlainYamlError, compose, plain_value

KeyPath = tuple[str | int, ...]

# An override of one key removes the other.
_ALTERNATIVES: dict[KeyPath, KeyPath] = {
    ("data", "validation"): ("data", "holdout"),
    ("data", "holdout"): ("data", "validation"),
    ("training", "warmup_steps"): ("training", "warmup_ratio"),
    ("training", "warmup_ratio"): ("training", "warmup_steps"),
}
_QUOTE_HINT = "Text with special characters (* & ! % @ { [ or a colon and a blank) needs quotes."
_SECTIONS_HINT = (
    "A recipe is a YAML mapping with the sections model, task, data, adapter and training; "
    "recipes/quickstart.yaml is a short one to start from."
)


@dataclass(frozen=True, order=True)
class SourceLocation:
    """Where a value was written; locations sort in reading order."""

    override: int
    """0: in the recipe itself; n: in the n-th override."""
    line: int
    """Line of the recipe's file; 0: unknown."""
    label: str

    def __str__(self) -> str:
        return f"{self.label}:{self.line}" if self.line else self.label


@dataclass(frozen=True, order=True)
class Problem:
    """A mistake in a recipe."""

    location: SourceLocation
    message: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}"


@dataclass
class Source:
    """A recipe as written, with the mistakes found in reading it."""

    origin: str
    """The recipe's name in messages, usually its path."""
    values: dict[str, object]
    locations: dict[KeyPath, SourceLocation] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def location(self, path: KeyPath) -> SourceLocation:
        """Return where the value at `path`, or the nearest section around it, was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.locations:
                return self.locations[path[:length]]
        return SourceLocation(0, 0, self.origin)

    def override(self, arguments: Sequence[str]) -> None:
        """Apply `KEY=VALUE` arguments in order; invalid ones become problems.

        KEY is dotted; missing sections are created. A VALUE that starts with a bracket, a brace
        or a quotation mark is YAML. Any other is one plain scalar, so that paths and patterns
        (`C:\\x`, `*.query`, `a: b`) need no quotes.
        """
        given = {_split(argument)[0][:2] for argument in arguments}
        for number, argument in enumerate(arguments, 1):
            location = SourceLocation(number, 0, f'override "{argument}"')
            path, text = _split(argument)
            if text is None or not all(path):
                problem = "must be KEY=VALUE, such as training.learning_rate=5e-4"
                self.problems.append(Problem(location, problem))
            elif (section := self._section_for(path, location)) is not None:
                self._put(section, path, text, location)
                other = _ALTERNATIVES.get(path[:2])
                if other and other not in given and section.get(path[-1]) is not None:
                    self._remove(other)

    def _section_for(
        self, path: tuple[str, ...], location: SourceLocation
    ) -> dict[str, object] | None:
        """Return the mapping that contains `path`, created if missing; None if it is a value."""
        section = self.values
        for length, key in enumerate(path[:-1], 1):
            if section.get(key) is None:
                section[key] = {}
                self.locations.setdefault(path[:length], location)
            inner = section[key]
            if not isinstance(inner, dict):
                problem = f"{dotted(path[:length])}: is not a section (value {show(inner)})"
                self.problems.append(Problem(location, problem))
                return None
            section = inner
        return section

    def _put(
        self, section: dict[str, object], path: tuple[str, ...], text: str, location: SourceLocation
    ) -> None:
        node = None
        if text.startswith(("[", "{", '"', "'")):
            try:
                node = compose(text)
            except PlainYamlError as error:
                problem = f"{dotted(path)}: not valid YAML: {error.reason}. {_QUOTE_HINT}"
                self.problems.append(Problem(location, problem))
                return
        self._forget(path)
        self.locations[path] = location
        section[path[-1]] = (
            plain_value(text) if node is None else self._build(node, path, lambda _: location)
        )

    def _remove(self, path: KeyPath) -> None:
        section = self.values.get(str(path[0]))
        if isinstance(section, dict):
            section.pop(path[1], None)
        self._forget(path)

    def _forget(self, path: KeyPath) -> None:
        """Remove the locations at and below `path`, whose value changes."""
        self.locations = {key: at for key, at in self.locations.items() if key[: len(path)] != path}

    def _build(
        self, node: yaml.Node, path: KeyPath, at: Callable[[yaml.Node], SourceLocation]
    ) -> object:
        """Return the value of a YAML node, recording the location of each key and entry."""
        if isinstance(node, yaml.MappingNode):
            return self._build_mapping(node, path, at)
        if isinstance(node, yaml.SequenceNode):
            entries: list[object] = []
            for index, entry in enumerate(node.value):
                self.locations[*path, index] = at(entry)
                entries.append(self._build(entry, (*path, index), at))
            return entries
        assert isinstance(node, yaml.ScalarNode)
        return node.value if node.style else plain_value(node.value)

    def _build_mapping(
        self, node: yaml.MappingNode, path: KeyPath, at: Callable[[yaml.Node], SourceLocation]
    ) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            key, location = key_node.value, at(key_node)
            if not isinstance(key, str):
                where = dotted(path) or "top level"
                self.problems.append(Problem(location, f"{where}: a key must be a string"))
            elif key in values:
                first = self.locations[*path, key].line
                problem = f"{dotted((*path, key))}: given twice"
                problem += f" (first on line {first})" if first else ""
                self.problems.append(Problem(location, problem))
            else:
                self.locations[*path, key] = location
                values[key] = self._build(value_node, (*path, key), at)
        return values


def read_source(text: str, origin: str) -> Source:
    """Read the YAML text of a recipe that is called `origin` in messages.

    Raises:
        RecipeError: the text is empty, not plain YAML, or not a mapping.
    """
    try:
        node = compose(text)
    except PlainYamlError as error:
        message = f"{origin}:{error.line}: not valid YAML: {error.reason}"
        raise RecipeError(message, _QUOTE_HINT) from None
    if node is None:
        raise RecipeError(f"{origin}: the recipe is empty", _SECTIONS_HINT)
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1
        raise RecipeError(
            f"{origin}:{line}: the recipe is not a mapping of sections", _SECTIONS_HINT
        )
    source = Source(origin, {})
    source.values = source._build_mapping(
        node, (), lambda part: SourceLocation(0, part.start_mark.line + 1, origin)
    )
    return source


def dotted(path: KeyPath) -> str:
    """Return a key path as one string, list entries by number: `adapter.targets[0]`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def show(value: object) -> str:
    """Return a value as a recipe would write it, shortened for a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _split(argument: str) -> tuple[tuple[str, ...], str | None]:
    """Return key path and value of `KEY=VALUE`; the value is None if there is no `=`."""
    key, equals, text = argument.partition("=")
    return tuple(key.strip().split(".")), text.strip() if equals else None
