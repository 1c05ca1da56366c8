"""The two streams: results on stdout; progress, notes and errors on stderr."""

import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console
from rich.text import Text

from dcft_cli.errors import DCFTError


def _console(*, stderr: bool) -> Console:
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    # In a pipe, lines are not wrapped, so that grep finds them.
    return Console(highlight=False, soft_wrap=True, stderr=stderr, width=None if terminal else 200)


out = _console(stderr=False)
err = _console(stderr=True)


def waiting(what: str) -> AbstractContextManager[object]:
    """Show on a terminal what is in progress."""
    return err.status(f"{what} ...") if err.is_terminal else nullcontext()


def print_json(data: Mapping[str, Any]) -> None:
    """Print data for other programs."""
    sys.stdout.write(json.dumps(data, indent=2) + "\n")


def print_error(error: DCFTError) -> None:
    """Print what happened and where, then what to do next."""
    _print_sentence(Text.assemble(("Error: ", "bold red"), error.message))
    if error.hint:
        _print_sentence(Text.assemble(("Hint: ", "bold cyan"), error.hint))


def print_note(text: str) -> None:
    """Print something the user should know."""
    _print_sentence(Text.assemble(("Note: ", "bold yellow"), text))


def _print_sentence(text: Text) -> None:
    # On a terminal, wrapped between words.
    err.print(text, soft_wrap=not err.is_terminal)
