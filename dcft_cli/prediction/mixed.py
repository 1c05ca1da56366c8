"""Predict rows that name their adapter: adapters of one base model, mixed in every batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn

from dcft_cli.acceleration import enable
from dcft_cli.adapter_file.contents import AdapterContents
from dcft_cli.adapter_file.read import ADAPTER_FILE, read_adapter
from dcft_cli.addresses import local_path
from dcft_cli.data.prediction_set import Prediction, sort_by_length
from dcft_cli.data.rows import Rows, format_value
from dcft_cli.errors import AdapterFileError, RunError, listed
from dcft_cli.models.loading import base_fingerprint, head_outputs, load_model
from dcft_cli.prediction.predictor import Predictor, as_overrides
from dcft_cli.runs.adapted import AdaptedModel, recipe_of
from dcft_cli.runs.prepare import prepare
from dcft_cli.serving.model import DCFTModel
from dcft_cli.tasks import build_task
from dcft_cli.tasks.base import Task
from dcft_cli.training.machine import find_machine

_COLUMN = "adapter"  # of prepared rows and model inputs: which of the adapters


def load_mixed(
    folder: str,
    column: str,
    overrides: Sequence[str] = (),
    *,
    device: str | None = None,
    batch_size: int | None = None,
) -> "MixedPredictor":
    """Load the base model of a folder of adapters, to predict rows that name their adapter.

    Args:
        folder: has an adapter per name: NAME.safetensors, or a run folder NAME.
        column: of the rows, with the names.
        overrides: `KEY=VALUE` for the recipes of all adapters.
        device, batch_size: as for `load`.

    Raises:
        UserError: there are no adapters, or the first one that can be read does not fit its base.
    """
    overrides = [*overrides, *as_overrides(device, batch_size)]
    files = _adapters_in(local_path(folder))
    contents = _first_readable(files)
    recipe = recipe_of(contents.path, contents, overrides)
    machine = find_machine(recipe.training, recipe.model)
    preparation = prepare(recipe, labels=contents.model["labels"], training=False, data=False)
    model = load_model(preparation.recipe.model, preparation.config, preparation.auto_class).model
    nn.Module.to(model, machine.device)
    if recipe.training.acceleration == "auto":
        enable(model)
    base = AdaptedModel(contents.path, preparation, machine, model, chosen=())
    return MixedPredictor(base, files, column, overrides)


class MixedPredictor(Predictor):
    """Predict rows with the adapter that each of them names.

    An adapter is loaded when a row first names it, with its own task: labels, thresholds,
    temperature. All need the same type of task, the same text columns and the same base weights.

    Args:
        base: without an adapter, prepared for that of its path.
        files: of the adapters, by name.
        column: of the rows, with the names.
        overrides: `KEY=VALUE` for the recipes of all adapters.
    """

    def __init__(
        self, base: AdaptedModel, files: Mapping[str, Path], column: str, overrides: Sequence[str]
    ) -> None:
        super().__init__(base)
        self.files, self.column, self.overrides = files, column, overrides
        self._first = base.path
        self._accepted = {*self._accepted, _COLUMN}
        self.adapters = DCFTModel(base.model)
        self.columns = (*self.task.text, column)
        self._names = list(self.files)
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._tasks: dict[str, Task] = {}
        self._fingerprints: dict[frozenset[str], str] = {}

    def prepare(self, rows: Rows) -> Dataset:
        """Check rows and load the adapters that they name."""
        if not rows.records:
            return super().prepare(rows)
        names = rows.values(self.column, "--adapter-column")
        hint = f"Known: {listed(self._names)}."
        rows.check(self.column, names, self._name_problem, "no known adapter", hint)
        dataset = super().prepare(rows)
        for name in dict.fromkeys(map(str, names)):
            if name not in self._tasks:
                self._tasks[name] = self._load(name)
        return dataset.add_column(_COLUMN, [self._numbers[str(name)] for name in names])

    def predict_prepared(self, dataset: Dataset) -> list[Prediction]:
        """Return a prediction for every row of `prepare`, in order."""
        if not len(dataset):
            return []
        numbers = np.asarray(dataset[_COLUMN][:])
        inputs = dataset.remove_columns(_COLUMN)
        rows = {number: np.flatnonzero(numbers == number) for number in set(numbers.tolist())}
        tasks = {number: self._tasks[self._names[number]] for number in rows}
        sets = {
            number: task.prediction_set(inputs.select(rows[number]), self.preparation.tokenizer)
            for number, task in tasks.items()
        }
        columns: dict[str, list[Any]] = {}
        for number, found in sets.items():
            for name, values in {**found.features, _COLUMN: [number] * len(found.rows)}.items():
                columns.setdefault(name, []).extend(values)
        # The order is stable, so that the inputs of one adapter stay in that of its own set.
        features, _ = sort_by_length(columns)
        outputs = self._all_outputs(features)
        adapters = np.asarray(features[_COLUMN])
        predictions: list[Prediction] = [{}] * len(dataset)
        for number, found in sets.items():
            own = _of(outputs, adapters == number, len(tasks[number].labels))
            for row, prediction in zip(rows[number], found.predict(own), strict=True):
                predictions[row] = prediction
        return predictions

    @torch.inference_mode()
    def outputs(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the logits of a batch, each row with its adapter, as wide as the most labels."""
        inputs = {name: values.to(self.machine.device) for name, values in batch.items()}
        names = [self._names[number] for number in inputs.pop(_COLUMN).tolist()]
        with self.machine.autocast():
            outputs = head_outputs(self.adapters(**inputs, adapter_names=names))
        width = max(len(task.labels) for task in self._tasks.values())
        return [F.pad(o, (0, max(0, width - o.shape[-1])), value=-torch.inf) for o in outputs]

    def _name_problem(self, value: object) -> str:
        if value is None or value == "":
            return "is missing"
        return "" if str(value) in self.files else f"is {format_value(value)}"

    def _load(self, name: str) -> Task:
        """Load an adapter; return its task."""
        path = self.files[name]
        contents = read_adapter(path)
        recipe = recipe_of(path, contents, self.overrides)
        longest = min(recipe.data.max_length, self.preparation.max_positions)
        data = recipe.data.model_copy(update={"max_length": longest})
        task = build_task(recipe.task, data, contents.model["labels"])
        if (task.kind, task.text) != (self.task.kind, self.task.text):
            raise AdapterFileError(
                f"{path} is for {_described(task)}; {self._first} is for {_described(self.task)}.",
                "Adapters that are used together need the same type of task and the same text "
                "columns, such as data.text=text for all of them.",
            )
        task.restore_decision(contents.about().decision.chosen())
        self.adapters.load_adapter(contents, name, base_fingerprint=self._fingerprint(contents))
        return task

    def _fingerprint(self, contents: AdapterContents) -> str | None:
        """Return the fingerprint of a quantized base in full precision; None for any other."""
        section, exclude = self.preparation.recipe.model, contents.not_in_base
        if section.quantization is None:
            return None
        if exclude not in self._fingerprints:
            self._fingerprints[exclude] = base_fingerprint(
                self.model, exclude, section, self.preparation.auto_class
            )
        return self._fingerprints[exclude]


def _adapters_in(folder: Path) -> dict[str, Path]:
    """Return the adapter files of a folder by name, sorted."""
    if not folder.is_dir():
        raise RunError(f"{folder} is no folder.", "Name the folder that holds the adapters.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if (path / ADAPTER_FILE).is_file():
            name, file = path.name, path / ADAPTER_FILE
        elif path.suffix == ".safetensors" and path.is_file():
            name, file = path.stem, path
        else:
            continue
        if name in found:
            raise RunError(f"{folder} has two adapters called {name}.", "Rename one of them.")
        found[name] = file
    if not found:
        raise RunError(
            f"{folder} has no adapters.",
            f"It must hold run folders (NAME/{ADAPTER_FILE}) or files (NAME.safetensors).",
        )
    return found


def _first_readable(files: Mapping[str, Path]) -> AdapterContents:
    """Return the first adapter that can be used; perhaps no row names those before it.

    Raises:
        AdapterFileError: there is none; says why the first one cannot.
    """
    errors: list[AdapterFileError] = []
    for path in files.values():
        try:
            return read_adapter(path)
        except AdapterFileError as error:
            errors.append(error)
    raise errors[0]


def _of(outputs: Any, chosen: NDArray[np.bool_], labels: int) -> Any:
    """Return the outputs of one adapter's inputs, without the labels that only others have."""
    if isinstance(outputs, tuple):  # question answering
        return tuple(part[chosen] for part in outputs)
    return outputs[chosen][..., : labels or None]


def _described(task: Task) -> str:
    return f"{task.kind} of {' and '.join(task.text)}"
