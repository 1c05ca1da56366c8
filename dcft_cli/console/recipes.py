"""Recipes: those that come with dcft, their settings, and mistakes in them."""

import shlex
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dcft_cli.console.output import out
from dcft_cli.console.tables import facts
from dcft_cli.errors import RecipeError
from dcft_cli.recipe.settings import SCHEMA_FILE, Setting


def show_recipes(summaries: Mapping[str, str], folder: str) -> None:
    """Print the recipes of a folder with their summaries, and each folder in it as one line.

    Args:
        summaries: by name, of all recipes in the folder and below it.
        folder: its full name, such as `recipes/paper`.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    inner: dict[str, list[str]] = {}
    for name, summary in summaries.items():
        below, slash, rest = name.removeprefix(f"{folder}/").partition("/")
        if slash:
            inner.setdefault(f"{folder}/{below}", []).append(rest)
        else:
            table.add_row(name, summary)
    for name, files in sorted(inner.items()):
        nested = any("/" in file for file in files)
        more = f"{len(files)} recipes: dcft recipes list {name.partition('/')[2]}"
        table.add_row(f"{name}/", more if nested else ", ".join(files))
    out.print(table)


def show_copy(path: Path, command: str) -> None:
    """Print where a recipe was written, and the command to run next."""
    out.print(
        facts(
            ("recipe", str(path)),
            ("schema", f"{path.with_name(SCHEMA_FILE)} (completion in editors)"),
            ("next", f"dcft {command} {shlex.quote(str(path))} --dry-run"),
        )
    )


def show_validation(errors: Mapping[str, RecipeError | None]) -> None:
    """Print each recipe with "ok" or its mistakes."""
    for recipe, error in errors.items():
        style = "red" if error else "green"
        out.print(Text.assemble(("invalid" if error else "ok     ", style), "  ", recipe))
        if error:
            text = Padding(Text(str(error)), (0, 0, 0, 2), expand=False)
            out.print(text, soft_wrap=not out.is_terminal)


def show_settings(settings: Iterable[Setting]) -> None:
    """Print every setting by section: key, type, default, and what it means."""
    for section, group in groupby(settings, lambda setting: setting.key.partition(".")[0]):
        out.print(Text(f"{section}\n", style="bold underline"))
        for setting in group:
            kind = setting.kind
            if setting.default:
                required = setting.default == "required"
                kind += f" ({'required' if required else f'default {setting.default}'})"
            table = Table.grid()
            table.add_column()
            table.add_row(Text.assemble((setting.key, "bold"), "  ", (kind, "dim")))
            table.add_row(Padding(Text(setting.description), (0, 0, 1, 4)))
            out.print(table)
