"""Tables of runs that can be compared, and in each the groups that differ only by seed."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dcft_cli.recipe.schema import HOW_STARTED
from dcft_cli.reporting.collect import Excluded, Run

_NOT_COMPARED = frozenset(f"training.{name}" for name in ("seed", *HOW_STARTED))
_METHOD = "adapter.method"
# Scores of runs that differ in one of these are not comparable.
_SEPARATE = re.compile(
    r"model\.(name|revision)|task\.(name|type|metric|unanswerable)"
    r"|data\.(hub|config|revision|train|validation|text|label|holdout)\b.*"
)


@dataclass(frozen=True)
class Group:
    """Runs with the same settings, by seed.

    Attributes:
        name: method, and the settings that differ from those of its other groups in the table.
    """

    name: str
    method: str
    runs: Mapping[int, Run]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that all its runs have, by dotted keys."""
        return settings_of(next(iter(self.runs.values())))


@dataclass(frozen=True)
class Table:
    """Groups with the same task, data and base model."""

    groups: tuple[Group, ...]

    @property
    def runs(self) -> list[Run]:
        """All runs, group by group."""
        return [run for group in self.groups for run in group.runs.values()]

    @property
    def first(self) -> Run:
        """Any run: task, data and base model are the same in all."""
        return self.runs[0]


def settings_of(run: Run) -> dict[str, Any]:
    """Return all settings of a run's recipe that are not None, by their dotted keys."""
    flat: dict[str, Any] = {}

    def add(prefix: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, Mapping):
                add(f"{prefix}{name}.", value)
            elif value is not None:
                flat[prefix + name] = value

    add("", run.recipe.model_dump())
    return {key: value for key, value in flat.items() if key not in _NOT_COMPARED}


def make_tables(runs: Sequence[Run]) -> tuple[list[Table], list[Excluded]]:
    """Return the tables, and the runs that repeat another one's settings and seed.

    Of such repeats the latest counts.
    """
    cells: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        table, group = _keys(run)
        cells[table][group].append(run)
    tables, repeated = [], []
    for groups in cells.values():
        kept = []
        for members in groups.values():
            by_seed, older = _latest(members)
            kept.append(Group("", members[0].method, by_seed))
            repeated += older
        names = name_groups([group.settings for group in kept])
        named = [replace(group, name=name) for group, name in zip(kept, names, strict=True)]
        tables.append(Table(tuple(sorted(named, key=lambda group: _natural(group.name)))))
    return tables, repeated


def _keys(run: Run) -> tuple[str, str]:
    """Return what a run shares with all others in its table, and in its group."""
    settings = settings_of(run)
    separate = {key: value for key, value in settings.items() if _SEPARATE.fullmatch(key)}
    others = {key: value for key, value in settings.items() if key not in separate}
    rows = run.metrics.row_hashes.validation  # a file may have changed between runs
    return repr((run.metric, rows, sorted(separate.items()))), repr(sorted(others.items()))


def _latest(members: Sequence[Run]) -> tuple[dict[int, Run], list[Excluded]]:
    """Return the latest run of each seed, and the others."""
    by_seed: dict[int, Run] = {}
    for run in sorted(members, key=lambda run: run.finished):
        by_seed[run.metrics.seed] = run
    older = [
        Excluded(run.folder, f"same settings and seed as {kept.folder}, which is later")
        for run in members
        if (kept := by_seed[run.metrics.seed]) is not run
    ]
    return dict(sorted(by_seed.items())), older


def name_groups(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a name for each group: its method, and what differs between groups of this method."""
    names = [str(settings[_METHOD]) for settings in groups]
    for method in set(names):
        alike = [n for n, settings in enumerate(groups) if settings[_METHOD] == method]
        for n, words in zip(alike, differences([groups[n] for n in alike]), strict=True):
            names[n] = " ".join([method, *words])
    return names


def method_settings(groups: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return by method the settings (`KEY=VALUE`) that several methods have, but not the same.

    Settings that differ within a method are in its groups' names. Empty for a single method.
    """
    by_method: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for settings in groups:
        by_method[settings[_METHOD]].append(settings)
    fixed = {method: _shared(members) for method, members in by_method.items()}
    keys = list(dict.fromkeys(key for settings in fixed.values() for key in settings))
    differing = [
        key
        for key in keys
        if key != _METHOD and len({repr(s[key]) for s in fixed.values() if key in s}) > 1
    ]
    names = _short_names(differing)
    found = {
        method: [f"{names[key]}={_short(settings[key])}" for key in differing if key in settings]
        for method, settings in fixed.items()
    }
    return {method: words for method, words in found.items() if words}


def _shared(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings that all members have with the same value."""
    first, *others = members
    return {k: v for k, v in first.items() if all(k in o and o[k] == v for o in others)}


def differences(groups: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the settings (`KEY=VALUE`) of each group that others lack or have otherwise."""
    keys = list(dict.fromkeys(key for settings in groups for key in settings))
    shown = [key for key in keys if len({repr(settings.get(key)) for settings in groups}) > 1]
    names = _short_names(shown)
    return [
        [f"{names[key]}={_short(settings[key])}" for key in shown if key in settings]
        for settings in groups
    ]


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each dotted key, or the whole key if that part is not unique."""
    ends = [key.rpartition(".")[2] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, (list, tuple)):
        return ",".join(map(_short, value))
    return str(value)


def _natural(name: str) -> list[tuple[int, float, str]]:
    """Return a sort key by which 2 is before 12."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", name)
    return [(0, float(p), "") if n % 2 else (1, 0.0, p) for n, p in enumerate(parts)]
