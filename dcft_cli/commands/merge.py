"""`dcft merge`."""

import shlex
from typing import Annotated, Literal

import typer

from dcft_cli.errors import UserError
from dcft_cli.outputs import is_address


def _two_or_three(paths: list[str]) -> list[str]:
    if len(paths) not in (2, 3):
        raise typer.BadParameter(
            f"give ADAPTER and OUT, or BASE, ADAPTER and OUT, not {len(paths)}."
        )
    return paths


def merge(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[BASE] ADAPTER OUT",
            help="Base model, if given; adapter; folder to write.",
            callback=_two_or_three,
        ),
    ],
    dtype: Annotated[
        Literal["base", "float32", "bfloat16", "float16"],
        typer.Option(
            metavar="TYPE",
            help="Type of the stored weights: float32, bfloat16, float16; base: as in the base's "
            "config.json.",
        ),
    ] = "base",
) -> None:
    """Merge an adapter into its base model and verify the result.

    BASE is a Hub name or folder, in full precision; default: the adapter's own.
    ADAPTER is a run folder or an adapter file; OUT is a new or empty folder.

    dcft merge runs/rte merged/
    dcft merge microsoft/deberta-v3-base runs/rte merged/ --dtype bfloat16
    """
    from dcft_cli.commands.imports import gc_paused
    from dcft_cli.commands.signals import ended_in_order
    from dcft_cli.console.output import waiting
    from dcft_cli.console.tables import show_merge
    from dcft_cli.runs.folder import has_adapter

    *base, adapter, out = paths
    _check_order(paths, [has_adapter(path) for path in paths])
    with ended_in_order(), waiting("Merging and verifying"):
        with gc_paused():
            from dcft_cli.merging import merge as merging

        result = merging.merge(base[0] if base else None, adapter, out, dtype=dtype)
    show_merge(result)


def _check_order(paths: list[str], is_adapter: list[bool]) -> None:
    """Raise UserError if another argument than ADAPTER, the last but one, is the adapter.

    An address as OUT can only be a base model, which belongs before the adapter.
    """
    if len(paths) == 2 and is_address(paths[1]) and is_adapter[0]:
        raise UserError(
            f"{paths[1]} is an address, not a folder to write; the order is [BASE] ADAPTER OUT.",
            f"If it is the base model: {shlex.join(['dcft', 'merge', *reversed(paths)])} OUT",
        )
    if is_adapter[-2] or not any(is_adapter):
        return
    found = is_adapter.index(True)
    others = [path for place, path in enumerate(paths) if place != found]
    *base, out = others
    command = shlex.join(["dcft", "merge", *base, paths[found], out])
    raise UserError(
        f"{paths[found]} is the adapter, and the order is [BASE] ADAPTER OUT.",
        f"If {out} is the folder to write: {command}",
    )
