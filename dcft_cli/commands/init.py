"""`dcft init`."""

from typing import Annotated

import typer

from dcft_cli.commands.options import Overrides, Overwrite
from dcft_cli.recipe.schema import TaskType


def init(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="File: jsonl, csv, tsv, parquet or conll.")
    ],
    overrides: Overrides = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column of the text; give it twice for a pair."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column of the label; several for columns of 0 and 1."),
    ] = None,
    task: Annotated[
        TaskType | None,
        typer.Option(
            metavar="TYPE",
            help="Type of the task: classification, multi_label, regression, token_classification "
            "or question_answering.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Base model: Hub name or folder.")
    ] = "microsoft/deberta-v3-base",
    validation: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Rows to score. Without it, a part of DATA is held out."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The recipe. Without it, DATA's name with .yaml."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a recipe for a file of labeled data.

    Columns and task are guessed, and shown with the reasons.

    dcft init tickets.csv
    dcft init tickets.csv --text body --label queue --output queues.yaml
    """
    from dcft_cli.commands.imports import gc_paused
    from dcft_cli.console.draft import show_draft
    from dcft_cli.console.output import waiting

    with waiting("Reading the data"):
        with gc_paused():
            from dcft_cli.runs.draft import draft_recipe

        draft = draft_recipe(
            data,
            model,
            text=text or (),
            label=label or (),
            task=task,
            validation=validation,
            overrides=overrides or (),
            output=output,
            overwrite=overwrite,
        )
    show_draft(draft)
