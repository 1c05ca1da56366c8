"""`dcft push`."""

from typing import Annotated

import typer

from dcft_cli.commands.options import Adapter, Json


def push(
    adapter: Adapter,
    repository: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="Repository on the Hugging Face Hub.")
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the model card and send nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Share an adapter and its model card on the Hugging Face Hub.

    The card is written from the run: task, data, baselines, scores and settings.

    dcft push runs/tickets acme/tickets --dry-run
    dcft predict hub://acme/tickets --text "..."
    """
    from dcft_cli.console.output import print_json, waiting
    from dcft_cli.console.tables import show_push

    with waiting("Reading the adapter" if dry_run else "Uploading"):
        from dcft_cli.runs.push import push as run

        result = run(adapter, repository, private=private, dry_run=dry_run)
    if json:
        print_json(result.to_json())
    else:
        show_push(result)
