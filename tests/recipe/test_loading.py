"""Finding, reading and writing recipes."""

from pathlib import Path

import pytest

from dcft_cli.errors import RecipeError
from dcft_cli.recipe import (
    dump_recipe,
    is_file_address,
    load_recipe,
    recipe_from_mapping,
    shipped,
)

RECIPES = Path(__file__).parents[2] / "recipes"
MINIMAL = "model: {name: m}\ntask: {name: rte}\n"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("recipes/rte.yaml", "rte"),
        ("recipes/roberta-large/rte.yaml", "roberta-large-rte"),
        ("mine.v2.yaml", "mine.v2"),
        ("folder/mine.yaml", "mine"),
    ],
)
def test_short_name_and_path(elsewhere: Path, path: str, name: str) -> None:
    file = elsewhere / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(MINIMAL)
    loaded = load_recipe(path)
    assert (loaded.name, loaded.path, loaded.recipe.model.name) == (name, file, "m")


def test_packaged_recipes_are_found_from_any_folder(elsewhere: Path) -> None:
    loaded = load_recipe("recipes/roberta-large/rte.yaml")
    assert loaded.path == RECIPES / "roberta-large" / "rte.yaml"
    assert loaded.name == "roberta-large-rte"


def test_a_local_file_is_preferred_to_a_packaged_recipe(elsewhere: Path) -> None:
    (elsewhere / "recipes").mkdir()
    (elsewhere / "recipes" / "rte.yaml").write_text(MINIMAL)
    assert load_recipe("recipes/rte.yaml").recipe.model.name == "m"


def test_recipes_inside_an_installed_package_come_first(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = elsewhere / "site-packages" / "dcft_cli"
    (package / "recipes").mkdir(parents=True)
    (package / "recipes" / "rte.yaml").write_text(MINIMAL)
    monkeypatch.setattr(shipped, "__file__", str(package / "recipe" / "shipped.py"))
    loaded = load_recipe("recipes/rte.yaml")
    assert (loaded.name, loaded.path.parent) == ("rte", package / "recipes")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("rte", "recipes/rte.yaml"),
        ("rte.yaml", "recipes/rte.yaml"),
        ("recipes/rte.yml", "recipes/rte.yaml"),
        ("roberta-large/rt", "recipes/roberta-large/rte.yaml"),
        ("some/where/squad.yaml", "recipes/squad_v1.yaml"),
        ("own/reviws.yaml", "own/reviews.yaml"),
        ("zzzzzz", "dcft recipes list"),
        ("zzzzzz", "dcft init DATA"),
    ],
)
def test_a_name_that_is_not_found_lists_the_nearest(elsewhere: Path, name: str, near: str) -> None:
    (elsewhere / "own").mkdir()
    (elsewhere / "own" / "reviews.yaml").write_text(MINIMAL)
    with pytest.raises(RecipeError) as caught:
        load_recipe(name)
    assert name in caught.value.message
    assert near in caught.value.hint


def test_unreadable_files_are_errors(elsewhere: Path) -> None:
    (elsewhere / "latin.yaml").write_bytes(MINIMAL.encode() + b"# caf\xe9\n")
    with pytest.raises(RecipeError, match=r"^latin\.yaml is not UTF-8 text"):
        load_recipe("latin.yaml")
    with pytest.raises(RecipeError, match="Is a directory"):
        load_recipe(str(elsewhere))


def test_a_byte_order_mark_and_empty_sections_are_harmless(elsewhere: Path) -> None:
    (elsewhere / "r.yaml").write_text(f"\ufeff{MINIMAL}training:\n  # epochs: 3\n", "utf-8")
    assert load_recipe("r.yaml").recipe == recipe_from_mapping(
        {"model": {"name": "m"}, "task": {"name": "rte"}}, "r"
    )


def test_a_mapping_is_not_changed() -> None:
    data: dict[str, object] = {"model": {"name": "m"}, "task": {"name": "mnli"}, "data": None}
    recipe = recipe_from_mapping(
        data, "adapter.safetensors", ["data.validation={matched: a.csv, mismatched: b.csv}"]
    )
    assert recipe.data.validation == {"matched": "a.csv", "mismatched": "b.csv"}
    assert data == {"model": {"name": "m"}, "task": {"name": "mnli"}, "data": None}
    with pytest.raises(RecipeError, match=r"^adapter\.safetensors: model\.nam: unknown key"):
        recipe_from_mapping({**data, "model": {"name": "m", "nam": 1}}, "adapter.safetensors")


@pytest.mark.parametrize(
    ("value", "is_file"),
    [
        *((v, True) for v in ["a.jsonl", "A.CSV", "x/train", "x\\train", "./words.txt"]),
        *((v, True) for v in ["package://p/words.txt", "a.tsv", "b.json", "c.parquet"]),
        *((v, True) for v in ["train.conll", "d.iob", "e.IOB2", "f.bio"]),
        *((v, False) for v in ["train", "validation_matched", "train[:10%]", "v1.0", "words.txt"]),
    ],
)
def test_files_are_distinguished_from_splits(value: str, is_file: bool) -> None:
    assert is_file_address(value) is is_file


def test_a_dump_is_readable_and_reads_back(elsewhere: Path) -> None:
    recipe = recipe_from_mapping(
        {
            "model": {"name": "m"},
            "task": {"type": "classification", "labels": ["no", "5e-4", "1"]},
            "data": {"train": "C:\\a: b.csv", "text": "on", "validation": {"yes": "é.csv"}},
            "training": {"learning_rate": 5e-5, "weight_decay": 1, "epochs": 1e-3},
        },
        "r",
    )
    text = dump_recipe(recipe)
    (elsewhere / "r.yaml").write_text(text, "utf-8")
    assert load_recipe("r.yaml").recipe == recipe
    assert text.startswith("# ")
    assert ": null" not in text
    assert "\n  targets: [Q, K, V, O, FFN]\n" in text
    assert "\n  weight_decay: 1.0\n" in text
    sections = [line for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert sections == ["model:", "task:", "data:", "adapter:", "head:", "training:"]


def test_a_file_of_any_size_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(RecipeError, match="is longer than 262,144 bytes"):
        load_recipe(str(path))


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("".join(f"key{number}: 1\n" for number in range(10_000)))
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert len(caught.value.message.splitlines()) == 51
    assert " more" in caught.value.message.splitlines()[-1]
