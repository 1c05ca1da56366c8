"""What a recipe says and where: its values before they are checked, each with its place."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import yaml

from dcft_cli.errors import RecipeError
from dcft_cli.recipe.plain_yaml import PlainYamlError, compose, plain_value

KeyPath = tuple[str | int, ...]

# A recipe has one key of each pair; an override that gives one takes the place of the other.
_INSTEAD_OF: dict[KeyPath, KeyPath] = {
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
class Place:
    """Where something was written; places sort in the order of reading."""

    override: int
    """0: in the recipe itself; n: in the n-th override."""
    line: int
    """Line of the recipe's file; 0: none in particular."""
    label: str

    def __str__(self) -> str:
        return f"{self.label}:{self.line}" if self.line else self.label


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with a recipe."""

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass
class Source:
    """A recipe as written, and what was wrong in reading it."""

    origin: str
    """The recipe's name in messages, usually its path."""
    values: dict[str, object]
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """Where the value at `path` was written, or the nearest section around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return Place(0, 0, self.origin)

    def override(self, arguments: Sequence[str]) -> None:
        """Applies `KEY=VALUE` arguments in their order; faulty ones become problems.

        KEY is dotted; sections that are missing are made. A VALUE that starts with a bracket,
        a brace or a quotation mark is YAML. Any other is one plain scalar whatever is in it,
        so that paths and patterns (`C:\\x`, `*.query`, `a: b`) need no quotes of their own.
        """
        given = {_split(argument)[0][:2] for argument in arguments}
        for number, argument in enumerate(arguments, 1):
            place = Place(number, 0, f'override "{argument}"')
            path, text = _split(argument)
            if text is None or not all(path):
                problem = "must be KEY=VALUE, such as training.learning_rate=5e-4"
                self.problems.append(Problem(place, problem))
            elif (section := self._section_for(path, place)) is not None:
                self._put(section, path, text, place)
                other = _INSTEAD_OF.get(path[:2])
                if other and other not in given and section.get(path[-1]) is not None:
                    self._remove(other)

    def _section_for(self, path: tuple[str, ...], place: Place) -> dict[str, object] | None:
        """The mapping that holds `path`, made if missing; None if a value is in its place."""
        section = self.values
        for length, key in enumerate(path[:-1], 1):
            if section.get(key) is None:
                section[key] = {}
                self.places.setdefault(path[:length], place)
            inner = section[key]
            if not isinstance(inner, dict):
                problem = f"{dotted(path[:length])}: holds no keys (value {show(inner)})"
                self.problems.append(Problem(place, problem))
                return None
            section = inner
        return section

    def _put(
        self, section: dict[str, object], path: tuple[str, ...], text: str, place: Place
    ) -> None:
        node = None
        if text.startswith(("[", "{", '"', "'")):
            try:
                node = compose(text)
            except PlainYamlError as error:
                problem = f"{dotted(path)}: not valid YAML: {error.reason}. {_QUOTE_HINT}"
                self.problems.append(Problem(place, problem))
                return
        self._forget(path)
        self.places[path] = place
        section[path[-1]] = (
            plain_value(text) if node is None else self._build(node, path, lambda _: place)
        )

    def _remove(self, path: KeyPath) -> None:
        section = self.values.get(str(path[0]))
        if isinstance(section, dict):
            section.pop(path[1], None)
        self._forget(path)

    def _forget(self, path: KeyPath) -> None:
        """Drops the places at and below `path`, whose value changes."""
        self.places = {key: at for key, at in self.places.items() if key[: len(path)] != path}

    def _build(self, node: yaml.Node, path: KeyPath, at: Callable[[yaml.Node], Place]) -> object:
        """The value of a YAML node; notes the place of each key and entry in it."""
        if isinstance(node, yaml.MappingNode):
            return self._build_mapping(node, path, at)
        if isinstance(node, yaml.SequenceNode):
            entries: list[object] = []
            for index, entry in enumerate(node.value):
                self.places[*path, index] = at(entry)
                entries.append(self._build(entry, (*path, index), at))
            return entries
        assert isinstance(node, yaml.ScalarNode)
        return node.value if node.style else plain_value(node.value)

    def _build_mapping(
        self, node: yaml.MappingNode, path: KeyPath, at: Callable[[yaml.Node], Place]
    ) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            key, place = key_node.value, at(key_node)
            if not isinstance(key, str):
                where = dotted(path) or "top level"
                self.problems.append(Problem(place, f"{where}: a key must be plain text"))
            elif key in values:
                first = self.places[*path, key].line
                problem = f"{dotted((*path, key))}: given twice"
                problem += f" (first on line {first})" if first else ""
                self.problems.append(Problem(place, problem))
            else:
                self.places[*path, key] = place
                values[key] = self._build(value_node, (*path, key), at)
        return values


def read_source(text: str, origin: str) -> Source:
    """Reads the YAML text of a recipe that is called `origin` in messages.

    Raises:
        RecipeError: the text is empty, not plain YAML, or no mapping.
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
        raise RecipeError(f"{origin}:{line}: the recipe is no mapping of sections", _SECTIONS_HINT)
    source = Source(origin, {})
    source.values = source._build_mapping(
        node, (), lambda part: Place(0, part.start_mark.line + 1, origin)
    )
    return source


def dotted(path: KeyPath) -> str:
    """A key path in one word, list entries by number: `adapter.targets[0]`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def show(value: object) -> str:
    """A value as a recipe would write it, shortened for a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _split(argument: str) -> tuple[tuple[str, ...], str | None]:
    """Key path and value text of `KEY=VALUE`; the value is None where there is no `=`."""
    key, equals, text = argument.partition("=")
    return tuple(key.strip().split(".")), text.strip() if equals else None
