"""The two streams: results on stdout; progress, notes and errors on stderr."""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from dcft_cli.errors import DCFTError, printable
from dcft_cli.processes import process_rank


class _PlainConsole(Console):
    """Prints text as it is, and no control characters: it may come from files of others."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """See `Console.render_str`; here too, so that the widths of columns are right."""
        return super().render_str(printable(text), **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """See `Console.render`; rich's own controls, such as for a spinner, stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


class _PipeConsole(_PlainConsole):
    """Prints lines without the trailing blanks to which tables pad their cells."""

    def print(self, *objects: Any, **settings: Any) -> None:
        """See `Console.print`."""
        with self.capture() as capture:
            super().print(*objects, **settings)
        self.file.write(re.sub(r" +$", "", capture.get(), flags=re.MULTILINE))
        self.file.flush()


def _console(*, stderr: bool) -> Console:
    if (sys.stderr if stderr else sys.stdout).isatty():
        return _PlainConsole(stderr=stderr)
    # In a pipe, lines are not wrapped, so that grep finds them.
    return _PipeConsole(stderr=stderr, width=200)


out = _console(stderr=False)
err = _console(stderr=True)


def waiting(what: str) -> AbstractContextManager[object]:
    """Show on a terminal what is in progress."""
    if not err.is_terminal or process_rank() != 0:
        return nullcontext()
    return err.status(f"{what} ...", spinner_style="cyan")


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
