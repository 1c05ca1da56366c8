"""`dcft merge`."""

from typing import Annotated

import typer


def merge(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Base model: Hub name or folder.")],
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="Run folder, or adapter file.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write; must not exist.")],
) -> None:
    """Fold an adapter into its base: a plain transformers model, proved equal.

    dcft merge microsoft/deberta-v3-base runs/rte merged/
    """
    from dcft_cli.console.output import waiting
    from dcft_cli.console.tables import show_merge

    with waiting("Merging, and comparing with base + adapter"):
        from dcft_cli.runs import merging

        result = merging.merge(base, adapter, out)
    show_merge(result)
