"""ONNX models of the common encoders, with each kind of head."""

import errno
import os
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import PreTrainedModel

from dcft_cli import DCFTConfig, inject, merge
from dcft_cli.errors import ExportError
from dcft_cli.exporting.onnx import MODEL_FILE, write_onnx
from tests.architectures import tiny
from tests.families import tiny_model, tiny_tokenizer
from tests.small import perturb

MODELS = [
    ("bert", "SequenceClassification"),
    ("roberta", "TokenClassification"),
    ("distilbert", "QuestionAnswering"),
    ("deberta-v2", "SequenceClassification"),
    ("electra", "TokenClassification"),
    ("mpnet", "QuestionAnswering"),
    ("modernbert", "SequenceClassification"),
]


def adapted(model_type: str, head: str) -> PreTrainedModel:
    if model_type == "modernbert":
        model = tiny.tiny_model(model_type, f"AutoModelFor{head}")
    else:
        layers = "n_layers" if model_type == "distilbert" else "num_hidden_layers"
        model = tiny_model(model_type, head, **{layers: 1})
    return perturb(inject(model, DCFTConfig(kernel_size=4))).eval()


@pytest.mark.parametrize(("model_type", "head"), MODELS)
def test_onnxruntime_gives_the_same_logits(model_type: str, head: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    if model_type in ("bert", "electra"):
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    model = adapted(model_type, head)
    ids = torch.randint(10, 90, (2, 9))
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert write_onnx(model, partial(merge, model), tokenizer, tmp_path) <= 1e-5

    session = onnxruntime.InferenceSession(tmp_path / MODEL_FILE)
    inputs = {node.name: np.zeros((2, 9), dtype=np.int64) for node in session.get_inputs()}
    assert inputs.keys() == set(tokenizer.model_input_names)
    assert all(node.shape == ["batch", "length"] for node in session.get_inputs())
    inputs |= {"input_ids": ids.numpy(), "attention_mask": np.ones((2, 9), dtype=np.int64)}
    names = [node.name for node in session.get_outputs()]
    for name, found in zip(names, session.run(None, inputs), strict=True):
        np.testing.assert_allclose(found, expected[name], atol=1e-5)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["config.json", MODEL_FILE]


def test_a_model_that_torch_cannot_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **settings: object) -> None:
        raise RuntimeError("no such operator\n")

    monkeypatch.setattr(torch.onnx, "export", fail)
    model = adapted("bert", "SequenceClassification")
    with pytest.raises(
        ExportError, match=r"cannot be exported to ONNX.*no such operator"
    ) as caught:
        write_onnx(model, partial(merge, model), tiny_tokenizer(), tmp_path)
    assert "dcft merge" in caught.value.hint


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
    ids=["disk", "memory"],
)
def test_what_is_no_fault_of_the_model(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr(torch.onnx, "export", fail)
    model = adapted("bert", "SequenceClassification")
    with pytest.raises(type(error)) as caught:
        write_onnx(model, partial(merge, model), tiny_tokenizer(), tmp_path)
    assert caught.value is error
