"""Rows of a task, encoded as a run encodes them."""

from pathlib import Path
from typing import Any

from datasets import Dataset

from dcft_cli.recipe.schema import DataSection, TaskSection
from dcft_cli.tasks import load_task
from dcft_cli.tasks.base import EvaluationSet
from tests.families import tiny_tokenizer
from tests.samples import Row, write_rows


def encoded(
    kind: str, tmp_path: Path, rows: list[Row], tokenizer: Any = None, **data: Any
) -> tuple[Dataset, EvaluationSet]:
    """Training and validation rows of a task, both made of the same rows."""
    file = write_rows(tmp_path / "rows.jsonl", rows)
    settings = {"train": file, "validation": file, "max_length": 32, "document_stride": 4} | data
    if kind == "multi_label":
        settings |= {"text": "text", "label": "labels"}
    known = kind not in ("multi_label", "token_classification")
    section = TaskSection(name=kind) if known else TaskSection(type=kind)
    loaded = load_task(section, DataSection(**settings))
    assert loaded.train is not None
    tokenizer = tokenizer or tiny_tokenizer()
    train = loaded.task.encode_training(loaded.train.dataset, tokenizer)
    held = loaded.task.evaluation_set("", loaded.validation[""].dataset, tokenizer)
    return train, held
