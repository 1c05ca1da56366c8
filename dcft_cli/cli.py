"""The `dcft` command: its subcommands, and the only place where errors become exit codes."""

import functools
import inspect as signatures
import logging
from collections.abc import Callable
from typing import Annotated

import typer

from dcft_cli import __version__
from dcft_cli.commands.evaluate import evaluate
from dcft_cli.commands.export import export
from dcft_cli.commands.inspect import inspect
from dcft_cli.commands.merge import merge
from dcft_cli.commands.train import train
from dcft_cli.errors import DCFTError

app = typer.Typer(
    name="dcft",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _command(name: str, function: Callable[..., None]) -> None:
    """Add a subcommand, with `--debug` and the error boundary around it."""

    @functools.wraps(function)
    def bounded(*args: object, debug: bool = False, **kwargs: object) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:
            if debug:
                raise
            raise typer.Exit(_report(error, as_json=bool(kwargs.get("json")))) from None
        except KeyboardInterrupt:
            resume = " Checkpoints are kept: continue with --resume."
            typer.echo(f"\nStopped.{resume if name == 'train' else ''}", err=True)
            raise typer.Exit(130) from None

    signature = signatures.signature(function)
    option = signatures.Parameter(
        "debug", signatures.Parameter.KEYWORD_ONLY, default=False, annotation=Debug
    )
    parameters = [*signature.parameters.values(), option]
    bounded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    bounded.__annotations__ = {**function.__annotations__, "debug": Debug}
    app.command(name)(bounded)


def _report(error: Exception, *, as_json: bool) -> int:
    """Print an error; return the exit code: 2 for invalid input, 1 for anything else."""
    from dcft_cli.console.output import print_error, print_json

    if not isinstance(error, DCFTError):
        error = DCFTError(
            f"{type(error).__name__}: {error}",
            "Unexpected error: rerun with --debug for a traceback, and please report it.",
        )
    print_error(error)
    if as_json:
        print_json({"error": error.message, "hint": error.hint})
    return error.exit_code


_command("train", train)
_command("eval", evaluate)
_command("merge", merge)
_command("export", export)
_command("inspect", inspect)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dcft {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Fine-tune Hugging Face encoders with DCFT adapters (arXiv 2503.01419)."""


def main() -> None:
    """Entry point of the `dcft` script."""
    # Other libraries import bitsandbytes if it is installed, and it logs on import.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    app()
