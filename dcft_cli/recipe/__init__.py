"""Recipes: schema, reading from YAML files and `KEY=VALUE` overrides, and writing."""

from dcft_cli.recipe.adapter import AdapterSection
from dcft_cli.recipe.loading import LoadedRecipe, dump_recipe, load_recipe, recipe_from_mapping
from dcft_cli.recipe.schema import (
    DataSection,
    HeadSection,
    HoldoutSection,
    ModelSection,
    Recipe,
    SweepSection,
    TaskSection,
    TrainingSection,
    is_file_address,
)

__all__ = [
    "AdapterSection",
    "DataSection",
    "HeadSection",
    "HoldoutSection",
    "LoadedRecipe",
    "ModelSection",
    "Recipe",
    "SweepSection",
    "TaskSection",
    "TrainingSection",
    "dump_recipe",
    "is_file_address",
    "load_recipe",
    "recipe_from_mapping",
]
