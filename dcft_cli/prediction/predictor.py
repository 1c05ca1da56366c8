"""A trained adapter that predicts: `dcft_cli.load` in Python, and the core of `dcft predict`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from inspect import signature
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import finalize

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from dcft_cli.adapter.merge import merged
from dcft_cli.data.prediction_set import Columns, Prediction
from dcft_cli.data.rows import Rows, format_value
from dcft_cli.errors import DataError
from dcft_cli.models.loading import head_outputs
from dcft_cli.models.tokenizers import check_token_id
from dcft_cli.prediction.inputs import is_single, rows_of
from dcft_cli.runs.adapted import AdaptedModel, load_adapted


def load(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    device: str | None = None,
    batch_size: int | None = None,
) -> "Predictor":
    """Load a trained adapter, with its base model, to predict.

    Args:
        source: run folder, checkpoint folder, adapter file, or the `package://` or `hub://`
            address of one. The adapter names its base model.
        overrides: `KEY=VALUE` for the recipe of the run, such as `model.name=DIR`.
        device: auto, cuda, mps or cpu; None: as in the recipe.
        batch_size: rows that the model takes at once; None: as the recipe scores.

    Raises:
        UserError: no adapter, no such device, or another base model than it was trained on.
    """
    overrides = [*overrides, *as_overrides(device, batch_size)]
    return Predictor(load_adapted(source, overrides, data=False))


def as_overrides(device: str | None, batch_size: int | None) -> list[str]:
    """Return the overrides of a recipe that choose these."""
    settings = {"training.device": device, "training.eval_batch_size": batch_size}
    return [f"{key}={value}" for key, value in settings.items() if value is not None]


class Predictor:
    """Predict with a trained adapter in its base model.

    Several threads may call it: they take turns. Where W + dW can be computed once, it is held
    instead of added in every pass.

    Args:
        adapted: the model; it is used only by this predictor from now on.

    Attributes:
        labels: class names in the order of their numbers; empty without classes.
    """

    def __init__(self, adapted: AdaptedModel) -> None:
        self.preparation, self.machine = adapted.preparation, adapted.machine
        self.model = adapted.model.train(False)
        self.task = self.preparation.loaded.task
        self.columns = self.task.text
        self.labels = self.task.labels
        self.batch_size = self.preparation.recipe.training.evaluation_batch_size
        self._collate = self.preparation.collator(self.machine.device)
        self._accepted: Collection[str] = signature(self.model.forward).parameters
        self._turn = Lock()
        if self.machine.precision == "float32":  # mixed precision would round W + dW
            weights = ExitStack()
            weights.enter_context(merged(self.model))
            finalize(self, weights.close)

    def __call__(self, inputs: str | Mapping[str, Any] | Iterable[Any]) -> Any:
        """Predict rows that are at hand.

        Args:
            inputs: texts; for pairs tuples of two texts, or (question, context); for token
                classification texts, or lists of words; or mappings by the recipe's columns. One
                text, pair or mapping is one row.

        Returns:
            A mapping for one row, else a list of them in the order of the inputs;
            docs/prediction.md has their keys.

        Raises:
            DataError: inputs that cannot be predicted; names them.
        """
        if hasattr(inputs, "iterrows"):  # its iterator yields the names of its columns
            raise DataError(
                "The inputs are a data frame, not rows.",
                'Pass one column, frame["text"], or all of them: frame.to_dict("records").',
            )
        if not isinstance(inputs, Iterable):
            raise DataError(
                f"The inputs are {format_value(inputs)}, not rows.",
                "Pass a text, a mapping by column, or a list of them.",
            )
        single = is_single(inputs, self.columns)
        values = [inputs] if single else list(inputs)
        predictions = self.predict(rows_of(values, self.columns))
        return predictions[0] if single else predictions

    def predict(self, rows: Rows) -> list[Prediction]:
        """Return a prediction for every row, in order.

        Raises:
            DataError: rows that cannot be predicted; names them.
            ModelError: a token that the model has no embedding for.
            TrainingError: outputs that are not finite.
        """
        with self._turn:  # tokenizers and the progress bars of libraries have state
            return self.predict_prepared(self.prepare(rows))

    def prepare(self, rows: Rows) -> Dataset:
        """Check rows and put them into the task's columns.

        Raises:
            DataError: rows that cannot be predicted; names them.
        """
        if not rows.records:  # a chunk of blank rows, which may have no columns
            rows.raise_problems()
            return Dataset.from_dict({})
        return self.task.prepare_inputs(rows)

    def predict_prepared(self, dataset: Dataset) -> list[Prediction]:
        """Return a prediction for every row of `prepare`, in order."""
        if not len(dataset):
            return []
        found = self.task.prediction_set(dataset, self.preparation.tokenizer)
        return found.predict(self._all_outputs(found.features))

    @torch.inference_mode()
    def outputs(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the model's logits for a batch; for question answering those of start and end."""
        inputs = {name: values.to(self.machine.device) for name, values in batch.items()}
        with self.machine.autocast():
            return head_outputs(self.model(**inputs))

    def _all_outputs(self, features: Columns) -> NDArray[Any] | tuple[NDArray[Any], ...]:
        """Return the outputs for encoded rows, padded with zeros, as `PredictionSet` takes them.

        Raises:
            ModelError: a token that the model has no embedding for.
        """
        if not features["input_ids"]:  # no word of any row yields a token
            return np.zeros((0, 1, 1), np.float32)
        largest = max(max(ids) for ids in features["input_ids"])
        preparation = self.preparation
        check_token_id(preparation.recipe.model, preparation.config, preparation.tokenizer, largest)
        names = [name for name in features if name in self._accepted]
        inputs = [
            dict(zip(names, values, strict=True))
            for values in zip(*(features[name] for name in names), strict=True)
        ]
        whole: list[NDArray[np.float32]] = []
        for first in range(0, len(inputs), self.batch_size):
            batch = self._collate(inputs[first : first + self.batch_size])
            parts = [values.float().cpu().numpy() for values in self.outputs(batch)]
            if not whole:  # the longest batch
                whole = [np.zeros((len(inputs), *part.shape[1:]), np.float32) for part in parts]
            for values, part in zip(whole, parts, strict=True):
                values[first : first + len(part), : part.shape[1]] = part
        return whole[0] if len(whole) == 1 else tuple(whole)
