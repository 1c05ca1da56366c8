"""Well-formed adapter files that say what does not fit, in every command that uses them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.adapter_file.test_hostile import described, stored, write
from tests.cli.conftest import RunCli

Change = Callable[[dict[str, Any], dict[str, Any]], None]


def _info(**sections: Any) -> Change:
    return lambda description, tensors: description["info"].update(sections)


def _model(**values: Any) -> Change:
    return lambda description, tensors: description["model"].update(values)


def _base(**values: Any) -> Change:
    return lambda description, tensors: description["base"].update(values)


def _fixed(description: dict[str, Any], tensors: dict[str, Any]) -> None:
    description["fixed"] = ["nowhere.weight"]


def _weight(description: dict[str, Any], tensors: dict[str, Any]) -> None:
    description["modules"][0]["weight"] = "bert.pooler"


def _whole_row(description: dict[str, Any], tensors: dict[str, Any]) -> None:
    module = description["modules"][0]
    module["rows"] = [4, 4 + module["out_features"]]


def _other_head(description: dict[str, Any], tensors: dict[str, Any]) -> None:
    description["head"]["classifier.bias"] = [1]
    tensors["head.classifier.bias"] = np.zeros(1)


CHANGES: dict[str, Change] = {
    "nothing": lambda description, tensors: None,
    "task of another type": _info(task={"type": "regression"}),
    "task of no type": _info(task={"type": "sentiment"}),
    "task as text": _info(task="classification"),
    "no task": _info(task={}),
    "data as list": _info(data=[1]),
    "deep data": _info(data={"text": [[["a"]]]}),
    "unknown key": _info(training={"surprise": 1}),
    "escape in a key": _info(data={"\x1b[31m": 1}),
    "path as data": _info(data={"validation": "/etc/passwd", "text": ["a"]}),
    "temperature of zero": _info(decision={"temperature": 0.0}),
    "thresholds as text": _info(decision={"thresholds": "high"}),
    "class that is none": _model(**{"class": "os.system"}),
    "class without weights": _model(**{"class": "PreTrainedModel"}),
    "class of another head": _model(**{"class": "BertForTokenClassification"}),
    "class of another family": _model(**{"class": "DistilBertForSequenceClassification"}),
    "more labels": _model(labels=["a", "b", "c"]),
    "one label": _model(labels=["a"]),
    "same labels": _model(labels=["a", "a"]),
    "base that is a folder": _base(name="/etc"),
    "base with escapes": _base(name="\x1b[31m/x"),
    "base of no name": _base(name=None),
    "other base": _base(fingerprint="sha256:" + "0" * 64),
    "fixed that is not there": _fixed,
    "weight that is none": _weight,
    "rows beyond the weight": _whole_row,
    "head of another shape": _other_head,
}


def changed(finished: Path, folder: Path, change: Change) -> Path:
    """Return a copy of an adapter file that says something else, with correct checksums."""
    path = folder / "adapter.safetensors"
    shutil.copy(finished / path.name, path)
    description, tensors = described(path), stored(path)
    change(description, tensors)
    write(path, description, tensors)
    return path


@pytest.mark.parametrize("name", CHANGES)
def test_success_or_exit_code_2(
    finished: Path, base: Path, run_cli: RunCli, tmp_path: Path, name: str
) -> None:
    path = changed(finished, tmp_path, CHANGES[name])
    assert run_cli("inspect", str(path)).code == 0
    texts = ["--text", "a cat", "--text-pair", "a dog"]
    for arguments in (
        ["predict", str(path), *texts, f"model.name={base}"],
        ["predict", str(path), *texts],
        ["merge", str(base), str(path), str(tmp_path / "merged")],
        ["export", str(path), str(tmp_path / "peft"), "--to", "peft", "--base", str(base)],
    ):
        output = run_cli(*arguments)
        assert output.code in ((0,) if name == "nothing" else (0, 2)), (arguments[0], output.err)
        assert "\x1b" not in output.err
        assert output.code == 0 or output.err.count("Error: ") == 1


@pytest.mark.parametrize("name", ["os.system", "PreTrainedModel", "pipeline"])
def test_a_class_that_is_no_model_is_not_called(
    finished: Path, base: Path, run_cli: RunCli, tmp_path: Path, name: str
) -> None:
    path = changed(finished, tmp_path, _model(**{"class": name}))
    output = run_cli("merge", str(base), str(path), str(tmp_path / "merged"))
    assert output.code == 2
    assert f"was trained on a {name}, which transformers" in output.err
