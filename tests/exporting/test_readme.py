"""The README's script decides as the adapter does."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dcft_cli.adapter_file.contents import AdapterContents
from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.exporting.readme import readme
from dcft_cli.models.loading import load_config
from dcft_cli.recipe import ModelSection
from tests.families import save_base, tiny_tokenizer
from tests.merging.adapters import adapter_for

LOGITS = np.array([[2.0, -1.0, 0.5]])


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> AdapterContents:
    contents = read_adapter(adapter_for(save_base(tmp_path_factory.mktemp("base") / "bert")))
    return replace(contents, base={**contents.base, "name": "bert"})


def decided(
    contents: AdapterContents, base: Path, capsys: pytest.CaptureFixture[str], **changes: Any
) -> tuple[dict[str, Any], str]:
    """Run the last part of a script, from logits on; return its variables and what it prints."""
    contents = replace(contents, model={**contents.model, **changes.pop("model", {})}, **changes)
    section = ModelSection(name=str(base))
    text = readme(contents, section, load_config(section), tiny_tokenizer(), onnx_file="m.onnx")
    (script,) = re.findall(r"session\.run\([^\n]*\n(.*?)```", text, re.S)
    variables: dict[str, Any] = {
        "np": np,
        "logits": LOGITS,
        "labels": contents.model["labels"],
        "texts": ["a film"],
    }
    capsys.readouterr()
    exec(script, variables)
    return variables, capsys.readouterr().out.strip()


def test_classes_by_calibrated_probability(
    contents: AdapterContents, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = {"decision": {"temperature": 2.0}}
    variables, printed = decided(contents, base, capsys, info=info)
    expected = np.exp(LOGITS / 2) / np.exp(LOGITS / 2).sum()
    np.testing.assert_allclose(variables["probabilities"], expected)
    assert printed.startswith("LABEL_0 ")


def test_label_sets_by_the_threshold_of_each_label(
    contents: AdapterContents, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = {"problem_type": "multi_label_classification", "labels": ["a", "b", "c"]}
    info = {"task": {"type": "multi_label", "threshold": 0.9}}
    assert decided(contents, base, capsys, info=info, model=kind)[1].startswith("[] ")
    info |= {"decision": {"thresholds": {"c": 0.6, "a": 0.9, "b": 0.2}}}
    assert decided(contents, base, capsys, info=info, model=kind)[1].startswith("['b', 'c'] ")


def test_numbers_are_the_logits(
    contents: AdapterContents, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = decided(contents, base, capsys, model={"problem_type": "regression"})[1]
    assert printed == "2.0 ['a film']"
