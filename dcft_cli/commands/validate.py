"""`dcft validate`."""

from typing import Annotated

import typer

from dcft_cli.commands.options import Json, complete_recipe


def validate(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE", help="One or more recipes.", autocompletion=complete_recipe
        ),
    ],
    json: Json = False,
) -> None:
    """Check recipes without reading data or models.

    Exit code 2 if any has mistakes. dcft train RECIPE --dry-run also checks data and model.

    dcft validate recipes/rte.yaml my.yaml
    """
    from dcft_cli.console.output import print_json
    from dcft_cli.console.recipes import show_validation
    from dcft_cli.errors import RecipeError
    from dcft_cli.recipe import load_recipe

    errors: dict[str, RecipeError | None] = {}
    for recipe in recipes:
        try:
            load_recipe(recipe)
            errors[recipe] = None
        except RecipeError as error:
            errors[recipe] = error
    if json:
        print_json(
            {
                "recipes": [
                    {
                        "recipe": recipe,
                        "valid": error is None,
                        "error": error.message if error else None,
                        "hint": error.hint if error else None,
                    }
                    for recipe, error in errors.items()
                ]
            }
        )
    else:
        show_validation(errors)
    if any(errors.values()):
        raise typer.Exit(2)
