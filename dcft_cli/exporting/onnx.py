"""Base + adapter, merged, as an ONNX model for any batch size and length."""

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dcft_cli.errors import ExportError
from dcft_cli.failures import is_out_of_memory
from dcft_cli.merging.proof import largest_difference, logits, probes
from dcft_cli.models.loading import HEAD_OUTPUTS, head_outputs

MODEL_FILE = "model.onnx"
_SHAPES = ((8, 32), (1, 7), (3, 61))  # rows and longest row of the inputs that are compared
_MAX_BYTES = 2_000_000_000  # of a file; larger models keep their weights beside it


class _HeadOutputs(nn.Module):
    """A model that maps a dictionary of inputs to the outputs of its task head."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return tuple(head_outputs(self.model(**inputs)))


def write_onnx(
    model: PreTrainedModel,
    merge: Callable[[], object],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> float:
    """Merge the adapter, write model.onnx and config.json, and run the model in onnxruntime.

    Args:
        model: base + adapter.
        merge: merges the adapter, in place.
        tokenizer: whose inputs the ONNX model takes.
        folder: of the files.

    Returns:
        The largest logit difference to base + adapter, over inputs of several shapes.

    Raises:
        ExportError: torch cannot export the model, or onnxruntime cannot run it.
    """
    batches = [_inputs(model, tokenizer, rows, length) for rows, length in _SHAPES]
    expected = [logits(model, inputs) for inputs in batches]
    merge()
    with torch.no_grad():
        outputs = [name for name in HEAD_OUTPUTS if name in model(**batches[0])]
    try:
        _export(model, batches[0], outputs, folder / MODEL_FILE)
        found = _run(folder / MODEL_FILE, batches)
    except Exception as error:  # torch and onnxruntime raise many kinds
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ExportError(
            f"{type(model).__name__} cannot be exported to ONNX with torch {torch.__version__} "
            f"({type(error).__name__}: {lines[-1] if lines else ''}). Nothing was written.",
            "Merge the adapter instead (dcft merge). --debug shows all that torch says.",
        ) from error
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    return max(largest_difference(a, b) for a, b in zip(found, expected, strict=True))


def _inputs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: int, length: int
) -> dict[str, Tensor]:
    """Return random inputs of the kinds that the tokenizer makes and the model reads."""
    inputs = probes(model, rows, length)
    name = "token_type_ids"
    if name in tokenizer.model_input_names and name in inspect.signature(model.forward).parameters:
        second = torch.zeros_like(inputs["input_ids"])
        if getattr(model.config, "type_vocab_size", 0) > 1:
            second[:, second.shape[1] // 2 :] = 1
        inputs[name] = second
    return inputs


def _export(
    model: PreTrainedModel, inputs: dict[str, Tensor], outputs: Sequence[str], path: Path
) -> None:
    """Write the ONNX file; raises what torch raises."""
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    large = sum(p.nbytes for p in model.parameters()) > _MAX_BYTES
    with warnings.catch_warnings(), _quiet_exporter():
        warnings.simplefilter("ignore")  # the exporter's and its libraries' own
        torch.onnx.export(
            _HeadOutputs(model).eval(),
            (),
            path,
            kwargs={"inputs": inputs},
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes={"inputs": dict.fromkeys(inputs, shape)},
            dynamo=True,
            external_data=large,
            verbose=False,
        )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide torch's messages: of a way of exporting that fails before another succeeds, for one.

    What fails in the end is raised.
    """
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _run(path: Path, batches: Sequence[dict[str, Tensor]]) -> list[list[Tensor]]:
    """Return what onnxruntime computes on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    return [
        [torch.from_numpy(a) for a in session.run(None, {n: batch[n].numpy() for n in names})]
        for batch in batches
    ]
