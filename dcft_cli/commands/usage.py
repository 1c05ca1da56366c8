"""Mistakes in a command line: an option or a command that does not exist, a missing argument."""

from difflib import get_close_matches
from typing import Any

import typer

from dcft_cli.errors import UserError

# An option may mean anything: a setting is suggested only for nearly its own name.
_LIKENESS = 0.8


def explain_usage(error: typer.TyperException) -> UserError:
    """Return an error with what to type instead, from one of the command line parser."""
    message = " ".join(error.format_message().split())
    context: Any = getattr(error, "ctx", None)
    if context is None:
        return UserError(message, "--help lists the options of a command.")
    if hasattr(error, "possibilities"):  # an option that does not exist
        option = str(getattr(error, "option_name", ""))
        return _unknown_option(context, option, sorted(error.possibilities or ()))
    if hasattr(context.command, "commands"):
        return UserError(message, f"All commands: {context.command_path} --help")
    return UserError(message, _usage(context))


def _unknown_option(context: Any, option: str, options: list[str]) -> UserError:
    message = f"No such option: {option}"
    takes_settings = any(parameter.name == "overrides" for parameter in context.command.params)
    mistyped = get_close_matches(option, options, cutoff=0.8)
    scoring = context.command.name in ("eval", "predict")
    setting = _setting(option, scoring) if takes_settings and not mistyped else ""
    if setting:
        return UserError(
            f"{message}. Settings of the recipe are given as KEY=VALUE, without dashes.",
            f"Write {setting}=VALUE (all settings: dcft train --help-settings)",
        )
    near = [o for o in options if get_close_matches(option.strip("-"), [o.strip("-")])]
    return UserError(message, f"Did you mean {' or '.join(near)}?" if near else _usage(context))


def _usage(context: Any) -> str:
    """Return the usage of a command in one line."""
    usage = " ".join(context.get_usage().split())
    return f"{usage} (all options: {context.command_path} --help)"


def _setting(option: str, scoring: bool) -> str:
    """Return the recipe key that an option such as `--lr` means; "" if there is none.

    Args:
        scoring: whether the command scores or predicts: not all keys count then.
    """
    from dcft_cli.recipe.problems import nearest_keys
    from dcft_cli.recipe.settings import counts_when_scoring, settings

    path = tuple(option.lstrip("-").replace("-", "_").split("."))
    keys = [key for key, *_ in settings() if not scoring or counts_when_scoring(key)]
    # The name of a section means its first key, and `seed` the one in `training`.
    found = [
        key for near in nearest_keys(path, _LIKENESS) for key in keys if f".{near}." in f".{key}."
    ]
    return min(found, key=lambda key: key.count("."), default="")
