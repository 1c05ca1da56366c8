"""Code that a base model brings along: run only if recipe and command line both ask for it.

transformers would ask on the terminal; dcft always answers for itself, by default with no.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from dcft_cli.errors import ModelError

if TYPE_CHECKING:
    from dcft_cli.recipe.schema import ModelSection

_allowed = ContextVar("_allowed", default=False)

_BOTH = (
    "model.trust_remote_code: true in the recipe, and --trust-remote-code on the command line "
    "(train, sweep, eval, predict, inspect)"
)


@contextmanager
def remote_code(*, allowed: bool) -> Iterator[None]:
    """Allow the code of base models whose recipe asks for it, as the command line does."""
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def is_allowed() -> bool:
    """Return whether the command line allows the code of base models."""
    return _allowed.get()


def trusts_code(section: "ModelSection") -> bool:
    """Return whether the code of a base model may run: recipe and command line ask for it.

    Raises:
        ModelError: only one of them does.
    """
    if section.trust_remote_code == is_allowed():
        return is_allowed()
    only = "recipe" if section.trust_remote_code else "command line"
    raise ModelError(
        f"The code of the base model {section.name} was not run: only the {only} asks for it.",
        f"It takes both: {_BOTH}. Without code, remove the one that is there.",
    )


def refused(section: "ModelSection") -> ModelError:
    """Return the error for a base model that does not work without its own code."""
    return ModelError(
        f"The base model {section.name} brings code of its own, which was not run.",
        f"To run it with your rights, read it, then ask for it twice: {_BOTH}.",
    )
