"""`dcft merge`."""

from enum import StrEnum
from typing import Annotated

import typer


class DType(StrEnum):
    """Types that a merged model can be stored in."""

    base = "base"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def merge(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="Base model in full precision: name or folder.")
    ],
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="Run folder, or adapter file.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write: a new or empty one.")],
    dtype: Annotated[
        DType, typer.Option(help="Type of the weights written; base: as in the base's config.json.")
    ] = DType.base,
) -> None:
    """Fold an adapter into its base: a plain transformers model, proved equal.

    dcft merge microsoft/deberta-v3-base runs/rte merged/
    dcft merge microsoft/deberta-v3-base runs/rte merged/ --dtype bfloat16
    """
    from dcft_cli.console.output import waiting
    from dcft_cli.console.tables import show_merge
    from dcft_cli.runs.start_up import imports_uncollected

    with waiting("Merging, and comparing with base + adapter"):
        with imports_uncollected():
            from dcft_cli.merging import merge as merging

        result = merging.merge(base, adapter, out, dtype=dtype.value)
    show_merge(result)
