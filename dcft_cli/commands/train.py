"""`dcft train`."""

from typing import Annotated

import typer

from dcft_cli.commands.options import Overrides


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A YAML file, or the name of a recipe that ships with dcft."
        ),
    ],
    overrides: Overrides = None,
    output: Annotated[
        str | None,
        typer.Option(help="Run folder. Default: the recipe's, else runs/NAME.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, load no weights.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in the run folder.")
    ] = False,
) -> None:
    """Train an adapter as a recipe says.

    dcft train recipes/rte.yaml
    dcft train recipes/rte.yaml model.name=DIR data.train=train.jsonl data.validation=dev.jsonl
    """
    from dcft_cli.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())  # before the slow imports: mistakes show at once

    from dcft_cli.console.output import waiting
    from dcft_cli.console.progress import reporter
    from dcft_cli.console.tables import show_plan, show_training
    from dcft_cli.runs.start_up import imports_uncollected

    with waiting("Reading the data"):
        with imports_uncollected():
            from dcft_cli.runs.plan import plan_training
            from dcft_cli.runs.train import train as run

        plan = plan_training(loaded, output=output, overwrite=overwrite, resume=resume)
    if plan.arguments.should_save:
        show_plan(plan, dry_run=dry_run)
    if dry_run:
        return
    with reporter(active=plan.arguments.should_save) as view:
        result = run(plan, view, resume=resume)
    if plan.arguments.should_save:
        show_training(result)
