"""`--grid` and `--tune` arguments, and settings written as `KEY=VALUE`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dcft_cli.errors import UserError
from dcft_cli.recipe.ranges import parse_range
from dcft_cli.recipe.schema import SweepSection
from dcft_cli.recipe.source import PlainYamlError, Source, compose, plain_value


def with_arguments(
    section: SweepSection | None,
    *,
    grid: Sequence[str] = (),
    tune: Sequence[str] = (),
    trials: int | None = None,
    seeds: int | None = None,
) -> SweepSection:
    """Return a recipe's sweep with what the command line adds to it or replaces in it.

    Args:
        grid: `KEY=V1,V2`, whose values are those of a YAML list.
        tune: `KEY=LOW..HIGH`.

    Raises:
        UserError: an argument is malformed.
    """
    section = section or SweepSection()
    values = dict(map(_grid_argument, grid))
    ranges = dict(map(_tune_argument, tune))
    return section.model_copy(
        update={
            "grid": {**section.grid, **values},
            "tune": {**section.tune, **ranges},
            "trials": trials or section.trials,
            "seeds": seeds or section.seeds,
        }
    )


def _grid_argument(argument: str) -> tuple[str, list[Any]]:
    key, text = _split("--grid", argument, "training.learning_rate=1e-3,5e-3")
    source = Source("--grid", {})
    try:
        node = compose(f"[{text}]")
    except PlainYamlError as error:
        raise UserError(f'--grid "{argument}": {error}.', error.hint) from None
    values = source.build(node) if node is not None else []
    if source.problems or not isinstance(values, list):
        problem = source.problems[0][1] if source.problems else "not a list of values"
        raise UserError(f'--grid "{argument}": {problem}.', "Separate values by commas.")
    return key, values


def _tune_argument(argument: str) -> tuple[str, str]:
    key, text = _split("--tune", argument, "training.learning_rate=1e-4..1e-2")
    try:
        parse_range(text)
    except ValueError as error:
        raise UserError(f'--tune "{argument}": {error}.', f"{key}=1e-4..1e-2") from None
    return key, text


def _split(option: str, argument: str, example: str) -> tuple[str, str]:
    key, equals, text = (part.strip() for part in argument.partition("="))
    if not (key and equals and text):
        raise UserError(
            f'{option} "{argument}" is not KEY=VALUES.', f'For example: {option} "{example}"'
        )
    return key, text


def assignments(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return settings as overrides `KEY=VALUE`, which read back as the same values."""
    return tuple(f"{key}={_value(value)}" for key, value in settings.items())


def _value(value: object) -> str:
    if isinstance(value, str) and plain_value(value) == value == value.strip():
        return json.dumps(value, ensure_ascii=False) if value[0] in "[{\"'" else value
    return json.dumps(value, ensure_ascii=False)
