"""Loading base models: missing keys, the head's dropout, and errors."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from dcft_cli.errors import ModelError, UserError
from dcft_cli.models.loading import BaseModel, check_finite, load_config, load_model, skeleton
from dcft_cli.models.tokenizers import load_tokenizer
from dcft_cli.recipe import ModelSection
from tests.families import FAMILIES, config_of, save_base, tiny_tokenizer

CLASSIFIER = "AutoModelForSequenceClassification"
HEAD_DROPOUT = dict.fromkeys(FAMILIES, "classifier.dropout")
HEAD_DROPOUT |= dict.fromkeys(("bert", "distilbert", "deberta-v2"), "dropout")


def load(folder: Path, labels: int = 2, auto: str = CLASSIFIER, **settings: object) -> BaseModel:
    section = ModelSection(name=str(folder), **settings)
    return load_model(section, load_config(section, {"num_labels": labels}), auto)


def save_classifier(folder: Path, labels: int) -> Path:
    config = config_of("bert", num_labels=labels)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def test_missing_keys(base: Path, tmp_path: Path) -> None:
    head = {"classifier.weight", "classifier.bias"}
    assert load(base).missing_keys == head
    assert load(base, auto="AutoModelForQuestionAnswering").missing_keys == {
        "qa_outputs.weight",
        "qa_outputs.bias",
    }
    full = save_classifier(tmp_path / "full", labels=3)
    assert load(full, labels=3).missing_keys == set()
    assert load(full, labels=2).missing_keys == head
    # A masked language model has no pooler, and a head of its own that is left out.
    model = transformers.AutoModelForMaskedLM.from_config(config_of("bert"))
    model.save_pretrained(tmp_path / "mlm")
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert load(tmp_path / "mlm").missing_keys == head | pooler


def test_weights_equal_the_checkpoint(base: Path) -> None:
    stored = load_file(base / "model.safetensors")
    model = load(base).model
    loaded = dict(model.named_parameters())
    assert {f"bert.{name}" for name in stored} == {n for n in loaded if n.startswith("bert.")}
    assert all(torch.equal(tensor, loaded[f"bert.{name}"]) for name, tensor in stored.items())


def test_the_head_stays_in_float32_in_half_precision(base: Path) -> None:
    found = load(base, dtype="bfloat16")
    types = {name: p.dtype for name, p in found.model.named_parameters()}
    assert {name for name, dtype in types.items() if dtype == torch.float32} == found.missing_keys
    assert set(types.values()) == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize("family", FAMILIES)
def test_classifier_dropout(family: str, tmp_path: Path) -> None:
    save_base(tmp_path, family)

    def rates(dropout: float | None) -> dict[str, float]:
        model = load(tmp_path, classifier_dropout=dropout).model
        return {n: m.p for n, m in model.named_modules() if isinstance(m, nn.Dropout)}

    plain, changed = rates(None), rates(0.37)
    assert {name for name in plain if plain[name] != changed[name]} == {HEAD_DROPOUT[family]}
    assert changed[HEAD_DROPOUT[family]] == 0.37
    assert rates(0.0)[HEAD_DROPOUT[family]] == 0.0


def test_a_skeleton_has_shapes_and_no_weights() -> None:
    model = skeleton(config_of("bert"), CLASSIFIER)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert skeleton(config_of("bert"), CLASSIFIER) is model  # built once per configuration
    assert skeleton(config_of("bert", num_labels=3), CLASSIFIER).classifier.out_features == 3
    with pytest.raises(ModelError, match=r"no AutoModelForQuestionAnswering .* of type vit"):
        skeleton(transformers.ViTConfig(), "AutoModelForQuestionAnswering")


@pytest.fixture
def broken(base: Path, tmp_path: Path) -> Path:
    """A copy of the base, to be broken."""
    return Path(shutil.copytree(base, tmp_path / "broken"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_names(path: Path) -> None:
    save_file({f"x{n}": t for n, t in enumerate(load_file(path).values())}, path, {"format": "pt"})


def other_sizes(path: Path) -> None:
    tensors = load_file(path)
    tensors |= {n: t[:, :8].contiguous() for n, t in tensors.items() if t.shape == (36, 16)}
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Path.unlink, "Cannot load the weights"),
        (cut, "Cannot load the weights"),
        (other_names, r"do not fit its configuration: bert\..* is missing"),
        (
            other_sizes,
            r"do not fit its configuration: bert\..* has shape \(36, 8\), the",
        ),
    ],
)
def test_unusable_weights_are_errors(
    broken: Path, change: Callable[[Path], None], message: str
) -> None:
    change(broken / "model.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        load(broken)
    assert str(broken) in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", [None, "{", "{}", '{"model_type": "unheard-of"}'])
def test_unusable_configurations_are_errors(broken: Path, text: str | None) -> None:
    config = broken / "config.json"
    config.unlink() if text is None else config.write_text(text)
    with pytest.raises(ModelError, match="Cannot load the configuration") as caught:
        load_config(ModelSection(name=str(broken)))
    assert "folder" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "sought_on_the_hub"),
    [
        ("someone/model-that-is-not-here", True),
        ("not-here", True),
        ("/nowhere/at/all", False),
        ("./nowhere", False),
    ],
)
def test_a_missing_model_is_an_error(name: str, sought_on_the_hub: bool) -> None:
    with pytest.raises(ModelError, match=f"base model {name}.*no folder /") as caught:
        load_config(ModelSection(name=name))
    assert ("sought on the Hub" in caught.value.message) == sought_on_the_hub
    assert caught.value.hint.startswith("model.name=DIR")


def test_a_model_in_a_package(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_model_package").mkdir()
    (tmp_path / "tiny_model_package" / "__init__.py").touch()
    shutil.copytree(base, tmp_path / "tiny_model_package" / "model")
    monkeypatch.syspath_prepend(tmp_path)
    section = ModelSection(name="package://tiny_model_package/model")
    assert load_config(section).model_type == "bert"
    assert len(load_tokenizer(section)) == len(tiny_tokenizer())
    with pytest.raises(UserError, match="holds no other"):
        load_config(ModelSection(name="package://tiny_model_package/other"))


def test_weights_without_permission_are_named(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    weights = folder / "model.safetensors"
    weights.unlink()  # what safetensors says of a file that only others may read

    def access(path: Path, mode: int) -> bool:
        return path.name != "config.json"  # the tests may run as root, who may read anything

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(ModelError, match=r"Permission denied: .*config\.json"):
        load(folder)


def test_memory_that_runs_out_is_no_error_of_the_model(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        torch.empty(2**55, dtype=torch.uint8)

    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", refuse)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load(base)


def test_an_inconsistent_configuration_is_an_error(base: Path, tmp_path: Path) -> None:
    config = load_config(ModelSection(name=str(base)))
    config.num_attention_heads = 5
    with pytest.raises(ModelError, match="multiple of the number of attention"):
        skeleton(config, CLASSIFIER)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_are_not_finite_are_named(
    base: Path, tmp_path: Path, value: float, dtype: str
) -> None:
    model = transformers.AutoModel.from_pretrained(base, dtype=getattr(torch, dtype))
    model.encoder.layer[1].output.dense.weight.data[3, 2] = value
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"1 of .*encoder\.layer\.1\.output\.dense\.weight"):
        check_finite(ModelSection(name="damaged"), load(tmp_path, dtype=dtype).model)


def test_large_weights_are_finite(base: Path, tmp_path: Path) -> None:
    model = transformers.AutoModel.from_pretrained(base)
    model.pooler.dense.weight.data.fill_(3e38)  # their sum is infinite
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path).model
    assert loaded.bert.pooler.dense.weight.sum().isinf()
    check_finite(ModelSection(name="base"), loaded)  # raises nothing
