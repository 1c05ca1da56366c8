"""`dcft predict`: predict rows of any number, in chunks that are read, predicted and written."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset

from dcft_cli.data.rows import Rows
from dcft_cli.data.writing import finish_lines, scratch_folder, write_lines
from dcft_cli.errors import DataError
from dcft_cli.prediction.predictor import Predictor
from dcft_cli.prediction.request import Request
from dcft_cli.tasks.base import Task

Advance = Callable[[int, int | None], None]
"""Called with the rows done so far and, if it is known, the number of all rows."""


@dataclass(frozen=True)
class PredictionResult:
    """Predictions that were written.

    Attributes:
        output: the file; None for stdout.
        blank: number of rows without any value, which were left out.
        seconds: of reading, predicting and writing, without loading the model.
    """

    output: Path | None
    rows: int
    blank: int
    seconds: float


def predict_stream(
    predictor: Predictor,
    request: Request,
    advance: Advance = lambda done, total: None,
) -> PredictionResult:
    """Write every row with what is predicted for it, in the order of the rows.

    Rows of a file are all checked before the first one is predicted. Of several processes
    (torchrun), each predicts a share of the rows, and the first one puts them together.
    A file appears when it is complete, and replaces an earlier one.

    Raises:
        DataError: rows that cannot be read or predicted; names them. No file is written then.
        UserError: pairs for a task that takes single texts, or the other way round.
    """
    state = PartialState()
    task, data = predictor.task, predictor.preparation.recipe.data
    began = time.perf_counter()

    def prepared() -> Iterator[tuple[Rows, Dataset]]:
        for rows in request.read(data, task):
            _check_columns(rows, task)
            yield rows, predictor.prepare(rows)

    total = sum(len(dataset) for _, dataset in prepared()) if request.rereadable else None
    done = blank = 0

    def share() -> Iterator[list[dict[str, Any]]]:
        nonlocal done, blank
        for rows, dataset in prepared():
            first = (state.process_index - done) % state.num_processes
            mine = range(first, len(dataset), state.num_processes)
            predictions = predictor.predict_prepared(dataset.select(mine))
            found = zip(mine, predictions, strict=True)
            yield [{**rows.records[index], **prediction} for index, prediction in found]
            done += len(dataset)
            blank += rows.blank
            advance(done, total)

    if request.output is None:
        for lines in share():
            write_lines(sys.stdout.buffer, lines)
    else:
        _write_file(request.output, share(), state)
    return PredictionResult(request.output, done, blank, time.perf_counter() - began)


def _check_columns(rows: Rows, task: Task) -> None:
    """Raise DataError if a row has a value where its prediction would be written."""
    # A csv file has a column for each class, such as `probabilities.positive`.
    taken = {
        name
        for record in rows.records
        for name in record
        if name in task.predicted_columns or name.startswith("probabilities.")
    }
    if taken:
        raise DataError(
            f"{rows.source} has a column `{min(taken)}`, where the prediction would be written.",
            "Rename the column.",
        )


def _write_file(output: Path, share: Iterator[list[dict[str, Any]]], state: PartialState) -> None:
    with scratch_folder(output) if state.is_main_process else nullcontext() as created:
        # The folder of the first process, for all of them.
        (folder,) = broadcast_object_list([created])
        with (folder / f"{state.process_index}").open("wb") as file:
            for lines in share:
                write_lines(file, lines)
        state.wait_for_everyone()
        if state.is_main_process:
            parts = [folder / f"{process}" for process in range(state.num_processes)]
            finish_lines(parts[0] if len(parts) == 1 else _interleaved(parts), output)


def _interleaved(parts: Sequence[Path]) -> Path:
    """Put the lines of all processes together, which took turns, and return their file."""
    whole = parts[0].with_name("lines")
    files = [part.open("rb") for part in parts]
    with whole.open("wb") as file:
        for turn in zip_longest(*files, fillvalue=b""):
            file.writelines(turn)
    for opened in files:
        opened.close()
    return whole
