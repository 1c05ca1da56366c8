"""The cells of a sweep, and the mistakes that are found before the first one starts."""

from pathlib import Path
from typing import Any

import pytest

from dcft_cli.errors import RecipeError, UserError
from dcft_cli.recipe import dump_recipe, load_recipe
from tests.sweeping.sweeps import planned

RTE = Path("recipes/rte.yaml")
SWEEP = """
sweep:
  variants:
    thin: {adapter: {method: dcft, kernel_size: 16}, training.learning_rate: 1e-2}
    wide: {adapter.kernel_size: 2}
  grid:
    adapter.rank: [1, 2]
  seeds: 2
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "swept.yaml"
    path.write_text(Path("recipes/rte.yaml").read_text("utf-8") + SWEEP, "utf-8")
    return path


def test_variants_times_grid_times_seeds(recipe: Path) -> None:
    cells = planned(recipe, ["adapter.scale=3"]).cells
    assert [cell.name for cell in cells] == [
        f"{variant}-rank{rank}-seed{seed}"
        for variant in ("thin", "wide")
        for rank in (1, 2)
        for seed in (6, 7)
    ]
    thin, wide = cells[3], cells[4]
    assert thin.setting == "thin-rank2"
    assert thin.differing == {"": "thin", "adapter.rank": 2, "training.seed": 7}
    assert thin.recipe.adapter.kernel_size == 16
    assert thin.recipe.adapter.rank == 2
    assert thin.recipe.adapter.scale == 4.0, "the mapping replaces the section"
    assert thin.recipe.adapter.init == "gradient", "so defaults apply, not the recipe's settings"
    assert thin.recipe.training.learning_rate == 1e-2
    assert thin.recipe.training.seed == 7
    assert wide.recipe.adapter.scale == 3.0
    assert wide.recipe.adapter.init == "normal"
    assert all(cell.recipe.sweep is None for cell in cells)


def test_overrides_of_a_cell_make_its_recipe(recipe: Path) -> None:
    for cell in planned(recipe, ["adapter.scale=3"]).cells:
        again = load_recipe(str(recipe), ["adapter.scale=3", *cell.overrides]).recipe
        assert again.model_copy(update={"sweep": None}) == cell.recipe


def test_only_what_differs_is_named() -> None:
    (cell,) = planned(RTE, grid=["adapter.rank=2"]).cells
    assert (cell.name, cell.differing) == ("rte", {})
    assert cell.overrides == ("adapter.rank=2",)


def test_a_section_comes_before_its_keys() -> None:
    grid = ["adapter.rank=1,2", "adapter={method: dcft},{method: dcft, init: zero}"]
    cells = planned(RTE, grid=grid).cells
    assert [(c.recipe.adapter.rank, c.recipe.adapter.init) for c in cells] == [
        (1, "gradient"),
        (1, "zero"),
        (2, "gradient"),
        (2, "zero"),
    ]


def test_trials() -> None:
    sweep = planned(RTE, tune=["training.learning_rate=1e-4..1e-2"], trials=7, seeds=2)
    assert (len(sweep.cells), sweep.trials) == (2, 7)
    numbers = {"training.learning_rate": 2.5e-3}
    found = sweep.cells[1].recipe_with(numbers)
    assert (found.training.learning_rate, found.training.seed) == (2.5e-3, 7)
    assert found.model_copy(update={"training": sweep.cells[1].recipe.training}) == (
        sweep.cells[1].recipe
    )


def test_all_mistakes_are_listed_with_their_cells() -> None:
    grid = ["adapter.rank=1,0", "training.lr=1,2"]
    with pytest.raises(RecipeError) as error:
        planned(RTE, grid=grid)
    first, *others = error.value.message.splitlines()
    assert first.startswith('rank1-lr1, rank0-lr1: override "training.lr=1": training.lr: unknown')
    assert any(line.startswith("rank0-lr1, rank0-lr2: ") for line in others)
    assert any("must be at least 1" in line for line in others)


def test_the_last_seed_is_checked() -> None:
    most = f"training.seed={2**32 - 2}"
    assert len(planned(RTE, [most], seeds=2).cells) == 2
    with pytest.raises(RecipeError, match=r"rte: .*seed: must be at most 4294967295"):
        planned(RTE, [most], seeds=3)


def test_both_ends_of_a_range_are_checked() -> None:
    with pytest.raises(RecipeError, match=r"rte: .*weight_decay: must be at least 0"):
        planned(RTE, tune=["training.weight_decay=-1..1"], trials=2)
    with pytest.raises(RecipeError, match="must be a whole number"):
        planned(RTE, tune=["training.batch_size=8..16.0"], trials=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"grid": ["training.output=a,b"]}, "cannot set training.output"),
        ({"grid": ["sweep.seeds=1,2"]}, "cannot set sweep.seeds"),
        ({"grid": ["training.seed=1,2"], "seeds": 2}, "training.seed is set by the sweep"),
        ({"tune": ["adapter.scale=1..4.0"]}, "--trials"),
        ({"trials": 3}, "nothing to search"),
        (
            {"tune": ["adapter.scale=1..4.0"], "grid": ["adapter.scale=1,2"], "trials": 2},
            "in the grid and is tuned",
        ),
        ({"grid": ["adapter.rank=1,1"]}, "are the same run"),
    ],
)
def test_contradictions(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        planned(RTE, **arguments)
    assert words in str(error.value)


def test_a_variant_and_the_grid_set_different_keys(recipe: Path) -> None:
    for key in ("adapter.kernel_size=2,4", "adapter={method: dcft},{method: dcft, rank: 2}"):
        with pytest.raises(UserError, match="set by the variant"):
            planned(recipe, grid=[key])


def test_mistakes_in_the_section_have_a_line(recipe: Path) -> None:
    text = recipe.read_text("utf-8")
    recipe.write_text(text + "  tune: {adapter.scale: 1}\n  trails: 3\n", "utf-8")
    with pytest.raises(RecipeError) as error:
        load_recipe(str(recipe))
    assert "sweep.tune.adapter.scale: must be text" in error.value.message
    assert "sweep.trails: unknown key (value 3); did you mean trials?" in error.value.message
    assert f"{recipe}:" in error.value.message


def test_other_commands_ignore_the_section(recipe: Path) -> None:
    swept, plain = load_recipe(str(recipe)).recipe, load_recipe("recipes/rte.yaml").recipe
    assert swept.model_copy(update={"sweep": None}) == plain
    assert dump_recipe(swept) == dump_recipe(plain)


def test_a_sweep_of_nothing_is_the_recipe() -> None:
    (cell,) = planned(RTE).cells
    assert cell.recipe == load_recipe(str(RTE)).recipe
