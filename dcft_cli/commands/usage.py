"""Mistakes in a command line: an option or a command that does not exist, a missing argument."""

from typing import Any

import typer

from dcft_cli.errors import UserError


def explain_usage(error: typer.TyperException) -> UserError:
    """Return an error with what to type instead, from one of the command line parser."""
    context: Any = getattr(error, "ctx", None)
    message = error.format_message()
    if context is None:
        return UserError(message)
    usage = " ".join(context.get_usage().split())
    hint = f"{usage} (all options: {context.command_path} --help)"
    if hasattr(error, "possibilities"):  # an option that does not exist
        message = error.message
        option = str(getattr(error, "option_name", ""))
        takes_settings = any(parameter.name == "overrides" for parameter in context.command.params)
        near = sorted(error.possibilities or ())
        if takes_settings and (setting := _setting(option)):
            message = f"{message}. Settings of the recipe are given without dashes."
            hint = f"Write {setting}=VALUE (all settings: dcft train --help-settings)"
        elif near:
            hint = f"Did you mean {' or '.join(near)}? {hint}"
    return UserError(message, hint)


def _setting(option: str) -> str:
    """Return the recipe key that an option such as `--lr` stands for; "" if there is none."""
    from dcft_cli.recipe.problems import nearest_keys
    from dcft_cli.recipe.settings import settings

    name = option.lstrip("-").replace("-", "_")
    keys = [setting.key for setting in settings()]
    if name in keys:
        return name
    near = nearest_keys((name,)) or nearest_keys(tuple(name.split(".")))
    # The name of a section stands for its first key; `seed` is rather that of the training.
    found = [key for wanted in near for key in keys if f".{wanted}." in f".{key}."]
    return min(found, key=lambda key: key.count("."), default="")
