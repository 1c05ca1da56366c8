"""Adapters of three tenants, with random values, rows for them, and a comparison of predictions."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from dcft_cli import DCFTConfig, inject, save_adapter
from dcft_cli.tasks import FAMILIES
from tests.samples import opinion, rows_of

LABELS = {"acme": ["no", "yes"], "initech": ["a", "b", "c", "d", "e"], "umbrella": ["x", "y", "z"]}
TAGS = {
    "acme": ["O", "B-THING", "I-THING"],
    "initech": ["O", "B-PLACE", "I-PLACE", "B-THING", "I-THING"],
    "umbrella": ["N", "V", "X"],
}
CONFIGS = {
    "acme": DCFTConfig(kernel_size=4),
    "initech": DCFTConfig(kernel_size=3, stride=2, rank=2),
    "umbrella": DCFTConfig(kernel_size=4, targets=["Q", "V"]),
}
DECISIONS: dict[str, dict[str, Any]] = {"acme": {}, "initech": {"temperature": 2.5}, "umbrella": {}}
TEXT = {
    "question_answering": ["question", "context"],
    "token_classification": ["tokens"],
}


def save(base: Path, folder: Path, name: str, kind: Any, **data: Any) -> Path:
    """Save an adapter with random values, as `dcft train` describes it."""
    family = FAMILIES[kind]
    labels = (
        (TAGS if kind == "token_classification" else LABELS)[name] if family.has_classes else []
    )
    size = {"question_answering": 2, "regression": 1}.get(kind, len(labels))
    number = list(LABELS).index(name)
    torch.manual_seed(number)
    model, report = getattr(transformers, family.auto_class).from_pretrained(
        base, num_labels=size, output_loading_info=True
    )
    inject(model.eval(), CONFIGS[name], head=report["missing_keys"])
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    model.config.id2label = dict(enumerate(labels))
    decision = dict(DECISIONS[name])
    if kind == "multi_label" and name == "umbrella":
        decision["thresholds"] = {"x": 0.2, "y": 0.9, "z": 0.5}
    section = {"text": TEXT.get(kind, ["text"]), "max_length": 24, "document_stride": 8, **data}
    info = {"task": {"type": kind}, "data": section, "model": {}, "decision": decision}
    return save_adapter(model, folder, base_name=str(base), info=info)


def rows_for(kind: str, count: int) -> list[dict[str, Any]]:
    task = {"question_answering": "squad_v2"}.get(kind, kind)
    if kind in ("classification", "regression"):
        draw = random.Random(0)
        rows: list[dict[str, Any]] = [{"text": opinion(True, draw)} for _ in range(count)]
    else:
        rows = rows_of(task, count)
    names = list(LABELS)
    return [{**row, "tenant": names[(n + n // 4) % 3]} for n, row in enumerate(rows)]


def save_folder(base: Path, folder: Path) -> Path:
    """Save a run folder, and two files."""
    (folder / "acme").mkdir(parents=True)
    save(base, folder / "acme", "acme", "classification")
    for name in ("initech", "umbrella"):
        save(base, folder / f"{name}.safetensors", name, "classification")
    (folder / "notes.txt").touch()
    return folder


def close(a: Any, b: Any) -> bool:
    """Return whether two predictions are equal, numbers up to 1e-5."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return bool(a == pytest.approx(b, abs=1e-5) if isinstance(a, float) else a == b)
