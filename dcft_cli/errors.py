"""Errors that a user reads: what happened and where, and what to do next."""


class DCFTError(Exception):
    """Base of every error that `dcft` reports without a traceback.

    Args:
        message: what happened and where, in full sentences; may span lines.
        hint: what to do next; shown on a line of its own.

    `exit_code` is 1 for a failure and 2 for a mistake that the user can fix (`UserError`).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UserError(DCFTError):
    """A mistake in what the user gave: command line, recipe, data, model or adapter file."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe, or an override of it, that cannot be used as it is."""


class DataError(UserError):
    """Data that cannot be read or does not fit the task."""


class ModelError(UserError):
    """A base model or tokenizer that cannot be loaded or does not fit the task."""


class TargetError(UserError):
    """Target roles or patterns that match no layer of the model, or layers that do not fit."""


class AdapterFileError(UserError):
    """An adapter file that is damaged, of another version, or made for another base model."""


class RunError(UserError):
    """A run folder that is missing, incomplete, or would be overwritten."""


class MergeError(DCFTError):
    """A merged model that does not reproduce base + adapter."""


class TrainingError(DCFTError):
    """Training that cannot go on, such as a loss that is not finite."""
