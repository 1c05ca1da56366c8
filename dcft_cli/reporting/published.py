"""The DCFT paper's numbers, and whether a group of runs can be compared with them.

published.csv holds Tables 1 to 6 of arXiv 2503.01419 as printed: scores in percent, times in
hours. They are the best evaluation on the validation rows, of one seed ("Optimal values are used
as the final results", Table 1).
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePath

from dcft_cli.reporting.collect import Run
from dcft_cli.reporting.groups import Group

# Rows of nyu-mll/glue, rajpurkar/squad and rajpurkar/squad_v2: training rows, then the validation
# rows of each set.
_OFFICIAL_ROWS = {
    "cola": (8_551, 1_043),
    "sst2": (67_349, 872),
    "mrpc": (3_668, 408),
    "qqp": (363_846, 40_430),
    "stsb": (5_749, 1_500),
    "mnli": (392_702, 9_815, 9_832),
    "qnli": (104_743, 5_463),
    "rte": (2_490, 277),
    "squad_v1": (87_599, 10_570),
    "squad_v2": (130_319, 11_873),
}
_BLANK_ROWS = 0.001  # a few official training rows are blank, and left out
_TOLERANCE = 0.15  # counts of the paper differ from the factors' by up to 9 %, Table 3's by 13 %
_UNITS = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9}
_FULL = {"%": 184e6 / 100}  # Table 3 gives shares of DeBERTaV3-base


@dataclass(frozen=True)
class Published:
    """A number of the paper.

    Attributes:
        setting: `KEY=VALUE` of the recipe's adapter section; the others have their defaults.
        score: as printed; in percent, or hours.
        trained: trained parameters as printed; empty if there is no number.
    """

    experiment: str
    model: str
    task: str
    method: str
    setting: str
    metric: str
    score: str
    trained: str
    source: str

    @property
    def fraction(self) -> float:
        """The score between -1 and 1, as in metrics.json."""
        return float(self.score) / 100

    @property
    def parameters(self) -> float | None:
        """Number of trained parameters; None if there is no number."""
        if not self.trained:
            return None
        return float(self.trained[:-1]) * (_UNITS | _FULL)[self.trained[-1]]


@dataclass(frozen=True)
class Comparison:
    """Published numbers for a group, or the reason why there are none."""

    numbers: tuple[Published, ...]
    reason: str = ""


@cache
def published() -> tuple[Published, ...]:
    """Return all numbers of published.csv, in the order of the paper."""
    with files(__package__).joinpath("published.csv").open(encoding="utf-8") as file:
        return tuple(Published(**row) for row in csv.DictReader(file))


def compare(group: Group) -> Comparison:
    """Return the published numbers with the group's model, task, rows, method and setting."""
    run = next(iter(group.runs.values()))
    task, model = run.recipe.task.name, PurePath(run.recipe.model.name).name.lower()
    if task is None:
        return Comparison((), "own data")
    numbers = [n for n in published() if n.model == model]
    if not numbers:
        return Comparison((), f"{model} is not a base model of the paper")
    if run.recipe.model.quantization:
        return Comparison((), f"the base model is in {run.recipe.model.quantization}")
    numbers = [n for n in numbers if (n.task, n.metric) == (task, run.metric)]
    if not numbers:
        return Comparison((), f"the paper has no {run.metric} of {task} with {model}")
    if reason := _other_rows(run, task):
        return Comparison((), reason)
    numbers = [n for n in numbers if n.method == group.method]
    if not numbers:
        return Comparison((), f"the paper has no {group.method} on {task} with {model}")
    numbers = [n for n in numbers if _same_setting(n, run)]
    return Comparison(tuple(numbers), "" if numbers else "the paper has other settings")


def _other_rows(run: Run, task: str) -> str:
    """Return how the rows differ from the official ones; "" if they do not."""
    train, *validation = _OFFICIAL_ROWS[task]
    scored = list(run.metrics.validation_rows.values())
    if scored != validation:
        found = " and ".join(f"{rows:,}" for rows in scored)
        return (
            f"{found} validation rows, of officially {' and '.join(f'{v:,}' for v in validation)}"
        )
    trained = run.metrics.train_rows  # question answering counts windows, which are more
    if trained < train * (1 - _BLANK_ROWS) or (trained > train and not task.startswith("squad")):
        return f"{trained:,} training rows, of officially {train:,}"
    return ""


def _same_setting(number: Published, run: Run) -> bool:
    """Return whether the run has the settings of a published number.

    Where the paper names no setting, the number of trained parameters is compared instead.
    """
    if number.method != "dcft":
        parameters, trained = number.parameters, run.adapter_parameters
        return parameters is not None and abs(trained / parameters - 1) < _TOLERANCE
    wanted = dict(pair.split("=") for pair in number.setting.split())
    adapter = run.recipe.adapter
    return (
        adapter.rank == 1
        and adapter.kernel_size == int(wanted["kernel_size"])
        and (adapter.stride or adapter.kernel_size)
        == int(wanted.get("stride", adapter.kernel_size))
        and set(adapter.targets) == set(wanted.get("targets", "Q,K,V,O,FFN").split(","))
    )
