"""Check the adapters of all cells, and count what they train, from configurations only."""

from collections.abc import Iterable

from dcft_cli.errors import ModelError, UserError, listed
from dcft_cli.models.loading import load_config, quiet_transformers
from dcft_cli.recipe import Recipe
from dcft_cli.runs.adapter_plan import plan_adapter
from dcft_cli.sweeping.cells import Cell
from dcft_cli.tasks import FAMILIES

_MAX_NAMES = 3


def adapter_parameters(
    cells: Iterable[Cell], *, need_models: bool
) -> tuple[dict[str, int], list[str]]:
    """Count the trained parameters in the adapter of each cell.

    Args:
        need_models: whether a model without a configuration at hand is a mistake; otherwise its
            cells are not counted.

    Returns:
        Counts by the cell's name, and the models whose configuration is not at hand.

    Raises:
        UserError: adapters do not fit their models; all of these cells are listed.
    """
    quiet_transformers()
    counts: dict[str, int] = {}
    missing: dict[str, str] = {}
    problems: dict[str, list[str]] = {}
    for cell in cells:
        model = cell.recipe.model.name
        try:
            if model not in missing:
                counts[cell.name] = _count(cell.recipe)
        except ModelError as error:
            missing[model] = error.message
            if need_models:
                problems.setdefault(str(error), []).append(cell.name)
        except UserError as error:
            problems.setdefault(str(error), []).append(cell.name)
    if problems:
        lines = [f"{listed(names, _MAX_NAMES)}: {what}" for what, names in problems.items()]
        raise UserError("\n".join(lines), "Correct the recipe or its sweep.")
    return counts, list(missing)


def _count(recipe: Recipe) -> int:
    config = load_config(recipe.model)
    auto_class = FAMILIES[recipe.task.kind].auto_class
    plan = plan_adapter(recipe.adapter, config, auto_class, dense=recipe.head.dense)
    return plan.adapter_parameters
