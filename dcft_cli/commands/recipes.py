"""`dcft recipes`."""

from typing import Annotated

import typer

from dcft_cli.commands.options import Json, Overwrite, complete_shipped

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Such as recipes/rte.yaml, rte or roberta-large/rte.",
        autocompletion=complete_shipped,
    ),
]


def list_recipes(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Only those in it, such as paper.")
    ] = "",
    json: Json = False,
) -> None:
    """List the recipes that come with dcft.

    dcft recipes list paper
    """
    from dcft_cli.console.output import print_json
    from dcft_cli.console.recipes import show_recipes
    from dcft_cli.recipe.shipped import find_folder, shipped_recipes

    wanted = find_folder(folder)
    recipes = {recipe.name: recipe.summary for recipe in shipped_recipes(wanted)}
    if json:
        print_json({"recipes": [{"name": n, "summary": text} for n, text in recipes.items()]})
    else:
        show_recipes(recipes, wanted)


def show_recipe(name: Name) -> None:
    """Print a recipe.

    dcft recipes show rte
    """
    from dcft_cli.recipe.shipped import find_shipped

    typer.echo(find_shipped(name).text, nl=False)


def copy_recipe(
    name: Name,
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DEST", help="File or folder; default: the current one.", show_default=False
        ),
    ] = ".",
    overwrite: Overwrite = False,
) -> None:
    """Copy a recipe, to change it.

    dcft recipes copy multi_label topics.yaml
    """
    from dcft_cli.console.recipes import show_copy
    from dcft_cli.recipe import load_recipe
    from dcft_cli.recipe.shipped import copy_shipped

    path = copy_shipped(name, destination, overwrite=overwrite)
    show_copy(path, "sweep" if load_recipe(str(path)).recipe.sweep else "train")
