"""Merging tensor by tensor: base and merged model are read in place, neither is in memory."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from dcft_cli.adapter_file.fingerprint import digest_of, fingerprint
from dcft_cli.adapter_file.load import load_adapter, refuse_other_base
from dcft_cli.adapter_file.read import AdapterContents
from dcft_cli.merging.checkpoints import MappedCheckpoint, NotStreamableError, safetensors_files
from dcft_cli.merging.merged_tensors import MergedTensors, one_thread
from dcft_cli.merging.proof import (
    InFloat32,
    folded_on_the_fly,
    largest_difference,
    logits,
    probes,
)
from dcft_cli.merging.streaming import compare, flush, places, write_merged
from dcft_cli.models.loading import BaseModel, load_config, load_model, revision_of, source_of
from dcft_cli.recipe import ModelSection

_SEEN = 256  # numbers of each tensor that are compared where a folder was loaded by its name


@dataclass(frozen=True)
class MergeTask:
    """What to merge, and where to write it.

    Attributes:
        section: the base model.
        config: its configuration, with the labels of the adapter.
        model_class: that the adapter was trained in.
        stored: type to write.
        folder: to write into; exists.
    """

    section: ModelSection
    contents: AdapterContents
    config: PreTrainedConfig
    model_class: str
    stored: torch.dtype
    folder: Path


@dataclass(frozen=True)
class Proof:
    """How far a merged model is from base + adapter: see `MergeResult`."""

    difference: float
    rounding: float | None


def merge_streamed(task: MergeTask) -> Proof:
    """Writes weights and configuration, and proves them.

    1. The base is mapped into memory, and what its parameters are in the checkpoint is what
       transformers makes of it.
    2. It is written tensor by tensor, in as many files as it has, and those go to the disk.
    3. transformers loads the folder by its name: nothing may be missing, of another shape, or
       left over.
    4. The files are mapped in turn, transformers makes a model of them, and every parameter and
       buffer of it is compared, bit for bit, with W, W + dW or the trained head.
    5. The logits of that model are compared with those of base + adapter, in float32: where it
       is stored in half precision, with W + dW before they were rounded.

    Raises:
        NotStreamableError: it takes the whole model; the folder holds anything by then.
        MergeError: the proof fails.
        UserError: base and adapter do not belong together.
    """
    checkpoint = MappedCheckpoint(safetensors_files(task.section, task.config))
    held = {t.dtype for t in checkpoint.tensors.values() if t.is_floating_point()}
    if len(held) != 1 or not held <= {torch.float32, torch.bfloat16, torch.float16}:
        raise NotStreamableError(f"weights of the types {held}")
    base = _mapped(task.section, task.config, task.model_class, checkpoint, held.pop())
    model, head = base.model, task.contents.head.keys()
    found = places(model, checkpoint, free={*base.missing_keys, *head})
    parameters = dict(model.named_parameters())
    for name in parameters.keys() & head:  # they will be overwritten, so they must not be mapped
        parameters[name].data = parameters[name].data.to(torch.float32, copy=True)
    load_adapter(model, task.contents.path, check_base=False)
    tensors = MergedTensors(model, task.stored)
    _write_config(model, task)
    digests: dict[str, bytes] = {}

    def read(name: str, tensor: Tensor) -> None:
        digests[name] = digest_of(tensor)  # now that it is in memory
        checkpoint.release(tensor)

    # While files are written and proved, those that are whole go to the disk.
    with ThreadPoolExecutor(1) as pool:
        flushed: list[Future[None]] = []
        files = write_merged(
            task.folder,
            tensors,
            found,
            read,
            wrote=lambda file: flushed.append(pool.submit(flush, file)),
        )
        refuse_other_base(task.contents, fingerprint(model, exclude=head, digests=digests))
        merged = MappedCheckpoint(files)

        def release(tensor: Tensor) -> None:
            checkpoint.release(tensor)
            merged.release(tensor)

        written = _read_back(task, merged)
        compare(tensors, _tensors_of(written), release)
        proof = _prove_logits(task, model, written, release)
        for file in flushed:
            file.result()
    return proof


def _mapped(
    section: ModelSection,
    config: PreTrainedConfig,
    model_class: str,
    checkpoint: MappedCheckpoint,
    dtype: torch.dtype,
) -> BaseModel:
    """A model whose parameters are the checkpoint's tensors themselves."""
    section = section.model_copy(update={"dtype": str(dtype).removeprefix("torch.")})
    base = load_model(section, config, model_class, checkpoint.tensors)
    base.model.train(False)
    return base


def _write_config(model: PreTrainedModel, task: MergeTask) -> None:
    """What `save_pretrained` writes besides the weights."""
    model.config.dtype = str(task.stored).removeprefix("torch.")
    model.config.architectures = [task.model_class]
    model.config.save_pretrained(task.folder)
    if model.can_generate():
        with suppress(OSError):  # a base without one has what its configuration says
            model.generation_config = GenerationConfig.from_pretrained(
                source_of(task.section.name), revision=revision_of(task.section)
            )
        model.generation_config.save_pretrained(task.folder)


def _read_back(task: MergeTask, merged: MappedCheckpoint) -> PreTrainedModel:
    """The model that transformers makes of the folder, its parameters the files' own tensors."""
    try:
        by_name, report = getattr(transformers, task.model_class).from_pretrained(
            task.folder, dtype=task.stored, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise NotStreamableError(f"the folder is not read: {error}") from error
    section = ModelSection(name=str(task.folder))
    read = _mapped(section, load_config(section, {}), task.model_class, merged, task.stored).model
    ours, plain = _tensors_of(read), _tensors_of(by_name)
    if any(report.values()) or ours.keys() != plain.keys():
        raise NotStreamableError(f"the folder is read as something else: {report}")
    for name, tensor in plain.items():
        seen, wanted = (t.detach().flatten()[:_SEEN] for t in (tensor, ours[name]))
        if seen.dtype != wanted.dtype or not torch.equal(seen.nan_to_num(), wanted.nan_to_num()):
            raise NotStreamableError(f"{name} is read as something else")
    return read


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, and the buffers that a checkpoint holds."""
    held = model.state_dict().keys()
    return dict(model.named_parameters()) | {n: b for n, b in model.named_buffers() if n in held}


def _prove_logits(
    task: MergeTask,
    adapted: PreTrainedModel,
    written: PreTrainedModel,
    release: Callable[[Tensor], None],
) -> Proof:
    inputs = probes(adapted, few=True)
    rounding = None

    def answers(model: PreTrainedModel) -> list[Tensor]:
        with InFloat32(release):
            return logits(model, inputs)

    try:
        # Weights are read once only: it takes as long as the products, and torch's threads wait.
        with one_thread(), ThreadPoolExecutor(2) as pool:
            expected, found = pool.map(answers, (adapted, written))
        if task.stored != torch.float32:
            with folded_on_the_fly(adapted, release):
                exact = answers(adapted)
            rounding = largest_difference(found, exact)
            found = exact
        return Proof(largest_difference(found, expected), rounding)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        # Code that takes the types of its weights for those of its numbers.
        raise NotStreamableError(f"{type(error).__name__}: {error}") from error
