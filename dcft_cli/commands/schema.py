"""`dcft schema`."""

import typer


def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    dcft init and dcft recipes copy write it next to the recipe, whose first line names it.

    dcft schema > recipe.schema.json
    """
    from dcft_cli.recipe.settings import schema_text

    typer.echo(schema_text(), nl=False)
