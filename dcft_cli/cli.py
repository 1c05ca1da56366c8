"""The `dcft` command: its subcommands, and the only place where errors become exit codes."""

import functools
import inspect as signatures
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
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
from dcft_cli.errors import DCFTError
from dcft_cli.failures import explained
from dcft_cli.models.remote_code import remote_code
from dcft_cli.processes import LOST, has_lost_another, is_reporter, record_error

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

_AFTER_STOP = {
    **dict.fromkeys(("train", "sweep"), " The same command goes on from here."),
    **dict.fromkeys(("merge", "export"), " Nothing was written."),
}

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run the code that the base model brings, if the recipe says "
        "model.trust_remote_code: true too.",
    ),
]


def _command(
    name: str,
    function: Callable[..., None],
    panel: str = _USE,
    parent: typer.Typer = app,
    *,
    own_code: bool = False,
) -> None:
    """Add a subcommand, with `--debug` and the error boundary around it.

    Args:
        panel: group of commands in which `dcft --help` shows it.
        own_code: whether it can use a base model with code of its own: `--trust-remote-code`.
    """

    @functools.wraps(function)
    def bounded(
        *args: object, debug: bool = False, trust_remote_code: bool = False, **kwargs: object
    ) -> None:
        try:
            with remote_code(allowed=trust_remote_code):
                function(*args, **kwargs)
        except BrokenPipeError:  # the reader of stdout has enough, such as `head`
            _discard_stdout()
            raise typer.Exit(141) from None  # as a shell reports SIGPIPE
        except Exception as error:
            if debug or isinstance(error, typer.Exit):
                raise
            told = LOST if has_lost_another(error) else explained(error, name)
            raise typer.Exit(_report(told, as_json=bool(kwargs.get("json")))) from None
        except KeyboardInterrupt as stopped:
            if is_reporter():
                with suppress(OSError):  # the terminal may be closed
                    typer.echo(f"\nStopped.{_AFTER_STOP.get(name, '')}", err=True)
            raise typer.Exit(getattr(stopped, "exit_code", 130)) from None

    signature = signatures.signature(function)
    options = {"debug": Debug} | ({"trust_remote_code": TrustRemoteCode} if own_code else {})
    parameters = list(signature.parameters.values())
    parameters += [
        signatures.Parameter(
            option, signatures.Parameter.KEYWORD_ONLY, default=False, annotation=kind
        )
        for option, kind in options.items()
    ]
    bounded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    bounded.__annotations__ = {**function.__annotations__, **options}
    parent.command(name, cls=_Command, rich_help_panel=panel)(bounded)


def _discard_stdout() -> None:
    """Let Python flush stdout at its end without another error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: DCFTError, *, as_json: bool) -> int:
    """Print an error; return the exit code: 2 for invalid input, 1 for anything else.

    Of several processes one prints: a mistake is found by all of them.
    """
    from dcft_cli.console.output import print_error, print_json

    record_error(error)
    if not is_reporter():
        return error.exit_code
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
_command("train", train, _TRAIN, own_code=True)
_command("sweep", sweep, _TRAIN, own_code=True)
_command("eval", evaluate, _TRAIN, own_code=True)
_command("inspect", inspect, _TRAIN, own_code=True)
_command("plot", plot, _TRAIN)
_command("report", report, _TRAIN)
_command("predict", predict, own_code=True)
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
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(given, standalone_mode=False, obj=given)
    except typer.TyperException as error:
        code = _report(explain_usage(error), as_json="--json" in given)
    sys.exit(code or 0)
