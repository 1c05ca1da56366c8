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


def show_recipes(summaries: Mapping[str, str]) -> None:
    """Print names and summaries; those in a folder, which are for one other model, as one line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for folder, names in groupby(summaries, lambda name: name.rpartition("/")[0]):
        if "/" in folder:
            table.add_row(f"{folder}/", ", ".join(name.rpartition("/")[2] for name in names))
        else:
            for name in names:
                table.add_row(name, summaries[name])
    out.print(table)


def show_copy(path: Path) -> None:
    """Print where a recipe was written, and the command to run next."""
    out.print(
        facts(
            ("recipe", str(path)),
            ("schema", f"{path.with_name(SCHEMA_FILE)} (completion in editors)"),
            ("next", f"dcft train {shlex.quote(str(path))} --dry-run"),
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
