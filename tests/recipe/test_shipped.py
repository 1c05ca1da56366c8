"""The recipes that come with the package."""

import json
from pathlib import Path

import pytest

from dcft_cli.errors import RecipeError, UserError
from dcft_cli.recipe import dump_recipe, load_recipe
from dcft_cli.recipe.settings import SCHEMA_FILE, json_schema
from dcft_cli.recipe.shipped import (
    EDITOR_LINE,
    copy_shipped,
    find_folder,
    find_shipped,
    shipped_recipes,
    short_name,
)

RECIPES = Path(__file__).parents[2] / "recipes"
ALL = sorted(path.relative_to(RECIPES).as_posix() for path in RECIPES.rglob("*.yaml"))
NAMES = [name for name in ALL if not name.startswith("paper/")]  # those: see test_paper.py
GLUE = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte")
OWN = ("token_classification.yaml", "multi_label.yaml")
MODELS = {
    ".": "microsoft/deberta-v3-base",
    "roberta-large": "FacebookAI/roberta-large",
    "deberta-v2-xxlarge": "microsoft/deberta-v2-xxlarge",
}

# Learning rate, epochs, max length, orthogonality (gamma), classifier dropout, scale, warm-up,
# weight decay, evaluation steps: Table 9 of the paper (its columns "Dropout" and "gamma" put
# right), and the authors' scripts for what it leaves open.
TABLE_9 = {
    "cola": (5e-4, 25, 64, 0.5, 0.1, 4, 100, 0, 100),
    "sst2": (8e-4, 24, 128, 0.1, 0, 2, 1000, 0.01, 3000),
    "mrpc": (1e-3, 30, 320, 0.1, 0, 4, 0.1, 0.01, 300),
    "qqp": (8e-4, 20, 320, 0.1, 0.15, 2, 2000, 0.01, 3000),
    "stsb": (2.2e-3, 25, 128, 0.1, 0.2, 4, 100, 0.1, 100),
    "mnli": (5e-4, 7, 256, 0.1, 0.15, 2, 1000, 0, 3000),
    "qnli": (1.2e-3, 6, 512, 0.1, 0.1, 4, 500, 0.01, 1000),
    "rte": (1.2e-3, 50, 320, 0.3, 0.2, 4, 200, 0.01, 100),
}


def test_all_recipes_are_there() -> None:
    squad = ("squad_v1", "squad_v2")
    large = ("cola", "sst2", "stsb", "qnli", "mnli", "rte")
    assert NAMES == sorted(
        [
            "quickstart.yaml",
            *OWN,
            *(f"{task}.yaml" for task in (*GLUE, *squad)),
            *(f"roberta-large/{task}.yaml" for task in (*GLUE, *squad)),
            *(f"deberta-v2-xxlarge/{task}.yaml" for task in large),
        ]
    )
    assert len(NAMES) == 29


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_reads_back_from_its_dump(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(str(RECIPES / name)).recipe
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), "utf-8")
    assert load_recipe(str(tmp_path / "recipe.yaml")).recipe == recipe


@pytest.mark.parametrize("name", sorted({*NAMES} - {"quickstart.yaml", *OWN}))
def test_each_recipe_has_the_task_and_model_of_its_name(name: str) -> None:
    recipe = load_recipe(str(RECIPES / name)).recipe
    task, model = Path(name).stem, MODELS[str(Path(name).parent)]
    assert (recipe.task.name, recipe.model.name) == (task, model)
    squad = (f"rajpurkar/{task.removesuffix('_v1')}", None)
    hub = ("nyu-mll/glue", task) if task in GLUE else squad
    assert (recipe.data.hub, recipe.data.config) == hub
    assert (recipe.data.train, recipe.data.validation, recipe.training.output) == (None,) * 3
    assert recipe.training.seed == (6 if task in GLUE else 42)
    assert (recipe.adapter.kernel_size, recipe.adapter.rank) == (8, 1)
    assert recipe.adapter.targets == ["Q", "K", "V", "O", "FFN"]
    assert f"dcft train recipes/{name}\n" in (RECIPES / name).read_text("utf-8")


@pytest.mark.parametrize("name", OWN)
def test_recipes_for_own_files_need_two_overrides(name: str) -> None:
    files = ["data.train=a.jsonl", "data.validation=b.jsonl"]
    recipe = load_recipe(str(RECIPES / name), files).recipe
    assert (recipe.task.name, recipe.task.type) == (None, Path(name).stem)
    assert (recipe.data.hub, recipe.model.name) == (None, MODELS["."])
    command = f"dcft train recipes/{name} data.train=FILE data.validation=FILE\n"
    assert command in (RECIPES / name).read_text("utf-8")


@pytest.mark.parametrize("task", GLUE)
def test_glue_settings_are_the_published_ones(task: str) -> None:
    recipe = load_recipe(str(RECIPES / f"{task}.yaml")).recipe
    training = recipe.training
    warmup = training.warmup_ratio if training.warmup_steps is None else training.warmup_steps
    assert training.batch_size == 32
    assert (
        training.learning_rate,
        training.epochs,
        recipe.data.max_length,
        recipe.adapter.orthogonality,
        recipe.model.classifier_dropout,
        recipe.adapter.scale,
        warmup,
        training.weight_decay,
        training.eval_steps,
    ) == TABLE_9[task]


@pytest.mark.parametrize("name", ALL)
def test_editors_find_the_schema(name: str) -> None:
    first, _, _ = (RECIPES / name).read_text("utf-8").partition("\n")
    start, _, schema = first.partition("$schema=")
    assert start == "# yaml-language-server: "
    assert (RECIPES / name).parent.joinpath(schema).resolve() == RECIPES / SCHEMA_FILE


def test_all_are_listed_with_what_they_are_for() -> None:
    summaries = {recipe.name: recipe.summary for recipe in shipped_recipes()}
    assert sorted(summaries) == [f"recipes/{name}" for name in ALL]
    assert list(summaries)[len(NAMES) - 1] == "recipes/roberta-large/stsb.yaml"
    assert all(summary[-1] in ".?" for summary in summaries.values())
    assert summaries["recipes/multi_label.yaml"].startswith("Your own texts, each with any number")


@pytest.mark.parametrize(
    ("name", "folder", "count"),
    [
        ("", "recipes", 70),
        ("recipes", "recipes", 70),
        ("paper", "recipes/paper", 41),
        ("recipes/paper/table1/", "recipes/paper/table1", 16),
        ("roberta-large", "recipes/roberta-large", 10),
    ],
)
def test_a_folder_is_found_by_several_names(name: str, folder: str, count: int) -> None:
    assert find_folder(name) == folder
    names = [recipe.name for recipe in shipped_recipes(folder)]
    assert len(names) == count and all(found.startswith(f"{folder}/") for found in names)


@pytest.mark.parametrize("name", ["pap", "paper/rte", "paper/table1/rte.yaml", "../docs"])
def test_another_folder_is_an_error_that_names_those_there_are(name: str) -> None:
    with pytest.raises(RecipeError, match=f"No folder of recipes is called {name}") as caught:
        find_folder(name)
    assert caught.value.hint == "There are: deberta-v2-xxlarge, paper, roberta-large"


@pytest.mark.parametrize(
    "name", ["recipes/roberta-large/rte.yaml", "roberta-large/rte", "roberta-large/rte.yaml"]
)
def test_a_recipe_is_found_by_several_names(name: str) -> None:
    assert find_shipped(name).path == RECIPES / "roberta-large" / "rte.yaml"
    with pytest.raises(RecipeError, match="is called rtee") as caught:
        find_shipped("rtee")
    assert "recipes/rte.yaml" in caught.value.hint


@pytest.mark.parametrize("name", ALL)
def test_a_copy_is_the_same_recipe_with_its_own_name(name: str, tmp_path: Path) -> None:
    path = copy_shipped(name, str(tmp_path), overwrite=False)
    assert path == tmp_path / f"{short_name(RECIPES / name)}.yaml"
    text = path.read_text("utf-8")
    assert text.startswith(EDITOR_LINE)
    assert text.count("yaml-language-server") == 1
    command = "sweep" if name.startswith("paper/") else "train"
    assert f"dcft {command} {path}" in text and f"recipes/{name}" not in text
    assert load_recipe(str(path)).recipe == load_recipe(str(RECIPES / name)).recipe
    assert json.loads((tmp_path / SCHEMA_FILE).read_text("utf-8")) == json_schema()


def test_a_copy_replaces_nothing_unasked(tmp_path: Path) -> None:
    file = tmp_path / "new" / "mine.yml"
    assert copy_shipped("rte", str(file), overwrite=False) == file
    file.write_text("mine", "utf-8")
    with pytest.raises(UserError, match="exists") as caught:
        copy_shipped("rte", str(file), overwrite=False)
    assert "--overwrite" in caught.value.hint
    assert file.read_text("utf-8") == "mine"
    copy_shipped("rte", str(file), overwrite=True)
    assert load_recipe(str(file)).recipe.task.name == "rte"
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(UserError, match="cannot be written"):
        copy_shipped("rte", str(tmp_path / "file" / "rte.yaml"), overwrite=False)
