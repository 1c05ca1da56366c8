"""The cells of a sweep: its variants, with every combination of its grid, with every seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from dcft_cli.errors import RecipeError, UserError, listed
from dcft_cli.recipe import LoadedRecipe, Recipe, SweepSection, load_recipe, recipe_from_mapping
from dcft_cli.recipe.ranges import Range, parse_range
from dcft_cli.sweeping.arguments import assignments
from dcft_cli.sweeping.names import run_names

_SEED = "training.seed"
_MAX_NAMES = 3


@dataclass(frozen=True)
class Cell:
    """One run of a sweep or, with `tune`, one search of several runs (trials).

    Attributes:
        name: short and unique in the sweep.
        setting: the name without the seed; cells that differ only in the seed share it.
        differing: the settings in which the cells of the sweep differ, by dotted key; that of the
            empty key is the name of the variant.
        overrides: `KEY=VALUE`, which turn the sweep's recipe into this one.
        recipe: checked; of a search, without the numbers that are searched for.
        tune: what is searched for, by dotted key; empty for a single run.
    """

    name: str
    setting: str
    differing: Mapping[str, Any]
    overrides: tuple[str, ...]
    recipe: Recipe
    tune: Mapping[str, Range]

    def recipe_with(self, numbers: Mapping[str, float]) -> Recipe:
        """Return the recipe of a trial, with the numbers that a search suggests."""
        if not numbers:
            return self.recipe
        values = self.recipe.model_dump(exclude_none=True)
        return recipe_from_mapping(values, self.name, assignments(numbers))


@dataclass(frozen=True)
class Sweep:
    """A sweep, checked.

    Attributes:
        name: short name of the recipe.
        source: path or name of the recipe, as given.
        path: of the recipe, as an absolute path.
        overrides: `KEY=VALUE` arguments of the command, which apply to all cells.
        trials: runs of each cell: 1 without `tune`.
    """

    name: str
    source: str
    path: Path
    overrides: tuple[str, ...]
    cells: tuple[Cell, ...]
    trials: int

    def loaded(self, recipe: Recipe) -> LoadedRecipe:
        """Return a recipe of this sweep as if it had been read from a file."""
        return LoadedRecipe(recipe, self.name, self.path)


def plan_sweep(path_or_name: str, overrides: Sequence[str], section: SweepSection) -> Sweep:
    """Derive the cells of a sweep from a recipe, and check all of them.

    Args:
        path_or_name: the recipe, as for `load_recipe`.
        overrides: `KEY=VALUE`, which apply to all cells.

    Raises:
        RecipeError: cells have mistakes; all of them are listed, with the cells that have them.
        UserError: the sweep contradicts itself.
    """
    _check(section)
    loaded = load_recipe(path_or_name, overrides)
    tune = {key: parse_range(text) for key, text in section.tune.items()}
    combinations = list(_combinations(section))
    several = {key for key, values in section.grid.items() if len(values) > 1}
    naming = [
        {key: value for key, value in differing.items() if key == "" or key in several}
        for differing, _ in combinations
    ]
    cells: list[Cell] = []
    problems: dict[str, list[str]] = {}
    names = run_names(naming, loaded.name)
    for name, own, (_, settings) in zip(names, naming, combinations, strict=True):
        changes = assignments(settings)
        try:
            recipe = load_recipe(path_or_name, [*overrides, *changes]).recipe
            recipe = recipe.model_copy(update={"sweep": None})
            cell = Cell(name, name, own, changes, recipe, tune)
            for end in ("low", "high"):  # the numbers between them are valid if both are
                cell.recipe_with({key: getattr(numbers, end) for key, numbers in tune.items()})
            last = {_SEED: recipe.training.seed + section.seeds - 1}  # the same for the seeds
            load_recipe(path_or_name, [*overrides, *changes, *assignments(last)])
        except RecipeError as error:
            for problem in error.message.splitlines():
                problems.setdefault(problem, []).append(name)
        else:
            cells += _seeded(cell, section.seeds)
    if problems:
        lines = [f"{listed(where, _MAX_NAMES)}: {what}" for what, where in problems.items()]
        raise RecipeError("\n".join(lines), "Correct the recipe, its sweep or the overrides.")
    _check_distinct(cells)
    trials = section.trials or 1
    return Sweep(
        loaded.name,
        path_or_name,
        loaded.path,
        tuple(overrides),
        tuple(cells),
        trials if tune else 1,
    )


def _check(section: SweepSection) -> None:
    """Raise UserError if a sweep contradicts itself."""
    settings = [*section.grid, *section.tune, *(k for v in section.variants.values() for k in v)]
    for key in settings:
        if key == "training.output" or key.partition(".")[0] == "sweep":
            raise UserError(
                f"A sweep cannot set {key}.", "Each run has its own folder in --output DIR."
            )
    if both := section.grid.keys() & section.tune.keys():
        raise UserError(f"{sorted(both)[0]} is in the grid and is tuned.", "Remove one of the two.")
    for variant, own in section.variants.items():
        for key, other in product(own, [*section.grid, *section.tune]):
            if f"{key}.".startswith(f"{other}."):
                raise UserError(
                    f"{key} is set by the variant {variant}, and {other} by the grid or search.",
                    "Remove one of the two.",
                )
    if section.seeds > 1 and _SEED in settings:
        raise UserError(
            f"{_SEED} is set by the sweep, and so is the number of seeds.", "Remove one of the two."
        )
    if section.tune and section.trials is None:
        raise UserError("A search needs its number of runs.", "Give it: --trials 20")
    if section.trials is not None and not section.tune:
        raise UserError(
            "There is nothing to search for in several trials.",
            "Name a range, --tune training.learning_rate=1e-4..1e-2, or leave --trials out.",
        )


def _combinations(section: SweepSection) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield what identifies each combination of a variant and the grid, and all its settings."""
    variants: list[tuple[str | None, dict[str, Any]]] = [*section.variants.items()] or [(None, {})]
    for variant, own in variants:
        for values in product(*section.grid.values()):
            point = dict(zip(section.grid, values, strict=True))
            identity = {} if variant is None else {"": variant}
            yield identity | point, _sections_first(own) | _sections_first(point)


def _sections_first(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Sort settings so that a section comes before the keys in it, which it would replace."""
    return {key: settings[key] for key in sorted(settings, key=lambda key: key.count("."))}


def _seeded(cell: Cell, seeds: int) -> Iterator[Cell]:
    if seeds == 1:
        yield cell
        return
    first = cell.recipe.training.seed
    for seed in range(first, first + seeds):
        training = cell.recipe.training.model_copy(update={"seed": seed})
        yield Cell(
            name=f"{cell.name}-seed{seed}",
            setting=cell.setting,
            differing={**cell.differing, _SEED: seed},
            overrides=(*cell.overrides, *assignments({_SEED: seed})),
            recipe=cell.recipe.model_copy(update={"training": training}),
            tune=cell.tune,
        )


def _check_distinct(cells: Sequence[Cell]) -> None:
    """Raise UserError if two cells are the same run."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        text = cell.recipe.model_dump_json()
        if text in seen:
            raise UserError(
                f"{seen[text].name} and {cell.name} are the same run.",
                "Give each value of a grid once, and variants that differ.",
            )
        seen[text] = cell
