"""A sweep as its storage has it: every run, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dcft_cli.recipe import Recipe
from dcft_cli.sweeping.cells import Cell, Sweep
from dcft_cli.sweeping.claims import Standing, Status, standing
from dcft_cli.sweeping.folders import run_folder
from dcft_cli.sweeping.keys import cell_key, check_rows
from dcft_cli.sweeping.owners import Watch
from dcft_cli.sweeping.storage import exists, open_storage
from dcft_cli.tasks.metrics import greater_is_better

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage


@dataclass(frozen=True)
class Run:
    """A run of a sweep and what became of it.

    Attributes:
        slot: 0, or with a search the number of the trial, from 0.
        folder: where it is, or would be.
        numbers: with a search, those of the trial; empty before it starts.
        metric, score: the main metric of the best checkpoint on the first validation set.
        step: optimizer step of the best checkpoint, or at which the run was pruned.
        message: why it failed.
        host, pid: the process that runs or ran it.
    """

    cell: Cell
    slot: int
    folder: Path
    status: Status
    numbers: Mapping[str, float] = field(default_factory=dict)
    metric: str | None = None
    score: float | None = None
    greater_is_better: bool = True
    seconds: float | None = None
    step: int | None = None
    message: str | None = None
    host: str | None = None
    pid: int | None = None

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.folder.name

    def to_json(self) -> dict[str, Any]:
        """Return the run as plain data."""
        names = ("metric", "score", "seconds", "step", "message", "host", "pid")
        return {
            "name": self.name,
            "cell": self.cell.name,
            "settings": {key or "variant": value for key, value in self.cell.differing.items()},
            "trial": self.slot + 1 if self.cell.tune else None,
            "numbers": dict(self.numbers),
            "status": self.status.value,
            **{name: getattr(self, name) for name in names},
            "folder": str(self.folder),
        }


class Board:
    """The runs of a sweep in its storage.

    Args:
        storage: None if there is none yet: nothing was run, and nothing is written.
        output: folder of the run folders.
    """

    def __init__(self, sweep: Sweep, storage: "BaseStorage | None", output: Path) -> None:
        self.sweep = sweep
        self.output = output
        self._storage = storage
        self._keys = {cell.name: cell_key(cell) for cell in sweep.cells}
        self._studies: dict[str, Study] = {}
        self._watch = Watch()
        self._names = self._study_names()

    @property
    def slots(self) -> list[tuple[Cell, int]]:
        """All runs in their order: every cell with its slots."""
        return [(cell, slot) for cell in self.sweep.cells for slot in range(self.sweep.trials)]

    def run(self, cell: Cell, slot: int) -> Run:
        """Return the current state of a run."""
        found = self.standing(cell, slot)
        result = found.result
        known = {
            name: result[name]
            for name in ("metric", "score", "greater_is_better", "seconds", "step", "message")
            if name in result
        }
        folder = result.get("folder")
        return Run(
            cell=cell,
            slot=slot,
            folder=Path(folder) if folder else self.folder(cell, slot),
            status=found.status,
            numbers={} if found.trial is None else dict(found.trial.params),
            host=found.owner.get("host"),
            pid=found.owner.get("pid"),
            **known,
        )

    def runs(self) -> list[Run]:
        """Return all runs as they stand."""
        self._names = self._study_names()
        return [self.run(cell, slot) for cell, slot in self.slots]

    def standing(self, cell: Cell, slot: int) -> Standing:
        """Return the trial that counts for a run."""
        study = self._find(cell)
        return Standing(slot, Status.TO_DO) if study is None else standing(study, slot, self._watch)

    def folder(self, cell: Cell, slot: int, *, create: bool = False) -> Path:
        """Return the folder of a run.

        Raises:
            RunError: the folder is that of another run.
        """
        name = f"{cell.name}-trial{slot + 1}" if cell.tune else cell.name
        key = f"{self._keys[cell.name]}-{slot}" if cell.tune else self._keys[cell.name]
        return run_folder(self.output, name, key, create=create)

    def study(self, cell: Cell) -> "Study":
        """Return the study of a cell; creates it."""
        import optuna

        study = self._find(cell)
        if study is None:
            study = optuna.create_study(
                storage=self._storage,
                study_name=self._study_name(cell),
                direction=_direction(cell.recipe),
                load_if_exists=True,
            )
            study.set_user_attr("cell", cell.name)  # for readers of the storage
            self._studies[cell.name] = study
        return study

    def sampler(self, cell: Cell, slot: int) -> "BaseSampler":
        """Return the sampler that suggests the numbers of a run.

        Its seed is that of the run: processes that search at the same time suggest different
        numbers, and one process suggests the same ones whenever it starts.
        """
        from optuna.samplers import TPESampler

        return TPESampler(seed=int(self._keys[cell.name][:6], 16) + slot)

    def _study_name(self, cell: Cell) -> str:
        return f"dcft {self._keys[cell.name]}"

    def _study_names(self) -> set[str]:
        import optuna

        return set(optuna.get_all_study_names(self._storage)) if self._storage else set()

    def _find(self, cell: Cell) -> "Study | None":
        """Return the study of a cell if there is one."""
        import optuna

        name = self._study_name(cell)
        if self._storage and cell.name not in self._studies and name in self._names:
            self._studies[cell.name] = optuna.load_study(study_name=name, storage=self._storage)
        return self._studies.get(cell.name)


def open_board(sweep: Sweep, url: str | None, output: Path, *, dry_run: bool) -> Board:
    """Open a sweep in its storage, whose data files must be there unless nothing is to be trained.

    Args:
        url: of a database; None: the journal file in `output`.
        dry_run: whether only to look at what is there: nothing is created.

    Raises:
        DataError: data files are missing.
        UserError: the database cannot be opened.
    """
    if not dry_run:
        check_rows(sweep.cells)
    is_there = not dry_run or exists(url, output)
    return Board(sweep, open_storage(url, output) if is_there else None, output)


def _direction(recipe: Recipe) -> Literal["minimize", "maximize"]:
    # Only a metric that the recipe names can be better when lower: no task's first one is.
    return "maximize" if greater_is_better(recipe.task.metric or "") else "minimize"
