"""Arguments that several commands share."""

from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings that replace the recipe's, such as training.max_steps=100.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print data alone, as JSON on stdout.")]
