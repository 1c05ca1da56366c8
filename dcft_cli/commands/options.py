"""Arguments shared by several commands, and their completion in the shell."""

from pathlib import Path
from typing import Annotated

import typer


def complete_recipe(incomplete: str) -> list[str]:
    """Return recipes: the files in the folder that is being typed, and those that come with dcft.

    A folder ends with a slash.
    """
    from dcft_cli.recipe.shipped import shipped_recipes

    parent, slash, _ = incomplete.rpartition("/")
    files = sorted(Path(parent or (slash or ".")).expanduser().glob("*"))
    local = [f"{parent}{slash}{file.name}{'/' if file.is_dir() else ''}" for file in files]
    local = [name for name in local if name.endswith(("/", ".yaml", ".yml"))]
    return list(dict.fromkeys([*local, *(recipe.name for recipe in shipped_recipes())]))


def complete_shipped(incomplete: str) -> list[tuple[str, str]]:
    """Return the recipes that come with dcft, with their summaries."""
    from dcft_cli.recipe.shipped import shipped_recipes

    return [(recipe.name, recipe.summary) for recipe in shipped_recipes()]


def complete_setting(incomplete: str) -> list[tuple[str, str]]:
    """Return the keys of a recipe, with their descriptions."""
    from dcft_cli.recipe.settings import settings

    return [
        (f"{setting.key}=", setting.description)
        for setting in settings()
        if setting.kind != "section"
    ]


Adapter = Annotated[str, typer.Argument(metavar="ADAPTER", help="Run folder or adapter file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Overrides of recipe settings, such as training.max_steps=100. All of them: "
        "dcft train --help-settings",
        autocompletion=complete_setting,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
