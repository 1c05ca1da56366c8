"""Errors for users: what happened and where, and what to do next."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

# Controls other than tab and line break (they drive a terminal), halves of characters (they cannot
# be written), and marks that reverse the order of what follows (they disguise a name).
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


class DCFTError(Exception):
    """Base class of the errors that `dcft` reports without a traceback.

    Args:
        message: what happened and where, in full sentences; may have several lines.
        hint: what to do next; shown on a separate line.

    `exit_code` is 1 for a failure and 2 for a mistake that the user can fix (`UserError`).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = printable(message), printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UserError(DCFTError):
    """Invalid input: command line, recipe, data, model or adapter file."""

    exit_code = 2


class RecipeError(UserError):
    """An invalid recipe or override."""


class DataError(UserError):
    """Data that cannot be read or does not fit the task."""


class ModelError(UserError):
    """A base model or tokenizer that cannot be loaded or does not fit the task."""


class TargetError(UserError):
    """A target that matches no layer of the model, or a layer that cannot have an adapter."""


class AdapterFileError(UserError):
    """An adapter file that is damaged, has another version, or belongs to another base model."""


class RunError(UserError):
    """A run folder that is missing, incomplete, or would be overwritten."""


class MergeError(DCFTError):
    """A merged model that does not reproduce base + adapter."""


class ExportError(DCFTError):
    """An export that another format cannot hold, or that does not reproduce base + adapter."""


class TrainingError(DCFTError):
    """Training that cannot continue, such as after a loss that is not finite."""


def printable(text: str) -> str:
    """Return a text that may come from a file with U+FFFD for each character that is not text."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def listed(names: Sequence[str], limit: int = 20, separator: str = ", ") -> str:
    """Return names as a message lists them; those beyond `limit` are counted."""
    more = len(names) - limit
    return separator.join([*names[:limit], *([f"and {more:,} more"] if more > 0 else [])])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question that ends with a blank, for the most similar known name; "" if none is."""
    near = get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]}? " if near else ""


class Stopped(KeyboardInterrupt):
    """The user or the system ended a run by a signal.

    Args:
        number: of the signal.
        step: the optimizer step whose checkpoint was saved because of it; None: none was.
    """

    def __init__(self, number: int, step: int | None = None) -> None:
        super().__init__(number)
        self.number, self.step = number, step

    @property
    def exit_code(self) -> int:
        """The exit code, as a shell reports a process that a signal ended."""
        return 128 + self.number
