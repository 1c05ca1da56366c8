"""The `dcft` command: its subcommands, and the only place where errors become exit codes."""

import errno
import functools
import inspect as signatures
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from dcft_cli import __version__
from dcft_cli.commands.env import env
from dcft_cli.commands.evaluate import evaluate
from dcft_cli.commands.export import export
from dcft_cli.commands.init import init
from dcft_cli.commands.inspect import inspect
from dcft_cli.commands.merge import merge
from dcft_cli.commands.plot import plot
from dcft_cli.commands.predict import predict
from dcft_cli.commands.push import push
from dcft_cli.commands.recipes import copy_recipe, list_recipes, show_recipe
from dcft_cli.commands.report import report
from dcft_cli.commands.schema import schema
from dcft_cli.commands.sweep import sweep
from dcft_cli.commands.train import train
from dcft_cli.commands.usage import explain_usage
from dcft_cli.commands.validate import validate
from dcft_cli.errors import DCFTError, Stopped, UserError

_START, _TRAIN, _USE, _ABOUT = "Start", "Train and score", "Use an adapter", "About"
_SETTINGS = {"help_option_names": ["-h", "--help"]}


class _Command(TyperCommand):
    """A command whose help shows flags without a type."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters."""
        return _untyped_flags(super().get_params(ctx))


class _Group(TyperGroup):
    """The same for a command with subcommands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters."""
        return _untyped_flags(super().get_params(ctx))


def _untyped_flags(params: list[Any]) -> list[Any]:
    """Set an empty placeholder instead of `<bool>`, which looks like a value to give."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


app = typer.Typer(
    name="dcft", cls=_Group, pretty_exceptions_enable=False, context_settings=_SETTINGS
)
recipes = typer.Typer(cls=_Group, context_settings=_SETTINGS)

_GO_ON = {"train", "sweep"}  # commands that continue what they were stopped in

# A file or folder that the user named cannot be read or written there.
_WRONG_PLACE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
}

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _command(
    name: str, function: Callable[..., None], panel: str = _USE, parent: typer.Typer = app
) -> None:
    """Add a subcommand, with `--debug` and the error boundary around it.

    Args:
        panel: group of commands in which `dcft --help` shows it.
    """

    @functools.wraps(function)
    def bounded(*args: object, debug: bool = False, **kwargs: object) -> None:
        try:
            function(*args, **kwargs)
        except BrokenPipeError:  # the reader of stdout has enough, such as `head`
            _discard_stdout()
            raise typer.Exit(141) from None  # as a shell reports SIGPIPE
        except Exception as error:
            if debug or isinstance(error, typer.Exit):
                raise
            raise typer.Exit(_report(error, as_json=bool(kwargs.get("json")))) from None
        except KeyboardInterrupt as stopped:
            more = " The same command goes on from here." if name in _GO_ON else ""
            typer.echo(f"\nStopped.{more}", err=True)
            code = stopped.exit_code if isinstance(stopped, Stopped) else 130
            raise typer.Exit(code) from None

    signature = signatures.signature(function)
    option = signatures.Parameter(
        "debug", signatures.Parameter.KEYWORD_ONLY, default=False, annotation=Debug
    )
    parameters = [*signature.parameters.values(), option]
    bounded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    bounded.__annotations__ = {**function.__annotations__, "debug": Debug}
    parent.command(name, cls=_Command, rich_help_panel=panel)(bounded)


def _discard_stdout() -> None:
    """Let Python flush stdout at its end without another error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: Exception, *, as_json: bool) -> int:
    """Print an error; return the exit code: 2 for invalid input, 1 for anything else."""
    from dcft_cli.console.output import print_error, print_json

    if isinstance(error, OSError) and error.errno in _WRONG_PLACE and error.filename:
        error = UserError(
            f"{error.strerror}: {error.filename}", "Check the path, or choose another one."
        )
    if not isinstance(error, DCFTError):
        error = DCFTError(
            f"{type(error).__name__}: {error}",
            "Unexpected error: rerun with --debug for a traceback, and please report it with the"
            " output of `dcft env`.",
        )
    print_error(error)
    if as_json:
        print_json({"error": error.message, "hint": error.hint})
    return error.exit_code


_command("init", init, _START)
app.add_typer(recipes, name="recipes", rich_help_panel=_START)
_command("list", list_recipes, "Commands", recipes)
_command("show", show_recipe, "Commands", recipes)
_command("copy", copy_recipe, "Commands", recipes)
_command("validate", validate, _START)
_command("train", train, _TRAIN)
_command("sweep", sweep, _TRAIN)
_command("eval", evaluate, _TRAIN)
_command("inspect", inspect, _TRAIN)
_command("plot", plot, _TRAIN)
_command("report", report, _TRAIN)
_command("predict", predict)
_command("merge", merge)
_command("export", export)
_command("push", push)
_command("schema", schema, _ABOUT)
_command("env", env, _ABOUT)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dcft {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def main_options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Fine-tune Hugging Face encoders with DCFT adapters (arXiv 2503.01419)."""
    _help_without_command(context)


@recipes.callback(invoke_without_command=True)
def recipes_options(context: typer.Context) -> None:
    """List, show or copy the recipes that come with dcft."""
    _help_without_command(context)


def _help_without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `dcft` script.

    Args:
        arguments: None takes those of the process.
    """
    # Other libraries import bitsandbytes if it is installed, and it logs on import.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        code = app(arguments, standalone_mode=False)
    except typer.TyperException as error:
        given = sys.argv[1:] if arguments is None else arguments
        code = _report(explain_usage(error), as_json="--json" in given)
    sys.exit(code or 0)
