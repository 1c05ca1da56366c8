"""Merging file by file: the same folder as from the whole model, and when it is not possible."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from dcft_cli.errors import MergeError
from dcft_cli.merging import merge as merging
from dcft_cli.merging import shards
from dcft_cli.merging.merge import DTypeChoice, merge
from dcft_cli.merging.shards import Layout, checkpoint_files, find_layout
from dcft_cli.recipe import ModelSection
from tests.architectures.tiny import tiny_config
from tests.families import save_base, tiny_model, tiny_tokenizer
from tests.merging.adapters import AUTO, adapter_for


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Layout | None]:
    """What `find_layout` returned in each merge of a test."""
    results: list[Layout | None] = []

    def find_and_record(*args: Any, **kwargs: Any) -> Layout | None:
        results.append(find_layout(*args, **kwargs))
        return results[-1]

    monkeypatch.setattr(merging, "find_layout", find_and_record)
    return results


def merge_both_ways(
    base: Path, root: Path, monkeypatch: pytest.MonkeyPatch, dtype: DTypeChoice
) -> tuple[Path, Path]:
    adapter = str(adapter_for(base))
    merge(str(base), adapter, str(root / "by_shard"), dtype=dtype)
    with monkeypatch.context() as patch:
        patch.setattr(merging, "find_layout", lambda *args, **kwargs: None)
        merge(str(base), adapter, str(root / "whole"), dtype=dtype)
    return root / "by_shard", root / "whole"


def assert_same_model(a: Path, b: Path) -> None:
    first, second = (dict(AUTO.from_pretrained(f).named_parameters()) for f in (a, b))
    assert first.keys() == second.keys()
    assert {p.dtype for p in first.values()} == {p.dtype for p in second.values()}
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (a / "config.json").read_text() == (b / "config.json").read_text()


@pytest.mark.parametrize("dtype", ["base", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_several_files(
    stored: torch.dtype, dtype: DTypeChoice, found: list[Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    base = save_base(tmp_path / "base")
    AutoModel.from_pretrained(base, dtype=stored).save_pretrained(base, max_shard_size="8KB")
    (base / "model.safetensors").unlink(missing_ok=True)
    by_shard, whole = merge_both_ways(base, tmp_path, monkeypatch, dtype)
    assert_same_model(by_shard, whole)
    files = sorted(by_shard.glob("model-*.safetensors"))
    assert len(files) == len(found[0]) == len(list(base.glob("model-*.safetensors"))) > 2
    tensors = {file.name: load_file(file) for file in files}
    index = json.loads((by_shard / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: file for file in tensors for name in tensors[file]}
    sizes = [tensor.nbytes for held in tensors.values() for tensor in held.values()]
    assert index["metadata"]["total_size"] == sum(sizes)
    assert index["weight_map"].keys() == load_file(whole / "model.safetensors").keys()
    assert {"classifier.weight", "classifier.bias"} <= tensors[files[-1].name].keys()
    for path in base.glob("model-*.safetensors"):
        assert {f"bert.{name}" for name in load_file(path)} <= tensors[path.name].keys()


@pytest.mark.parametrize(
    "model_type", ["gpt2", "qwen3", "t5", "albert", "deberta", "xlnet", "qwen3_moe"]
)
def test_layouts(
    model_type: str, found: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transposed, fused, shared, tied and read weights; experts that transformers stacks."""
    base = tmp_path / "base"
    torch.manual_seed(0)
    config = tiny_config(model_type, vocab_size=128, pad_token_id=0, eos_token_id=3)
    AutoModel.from_config(config).save_pretrained(base)
    tiny_tokenizer(eos_token="[SEP]").save_pretrained(base)
    assert_same_model(*merge_both_ways(base, tmp_path, monkeypatch, "bfloat16"))
    assert (found[0] is None) == (model_type == "qwen3_moe")


def test_weights_of_two_types(found: list[Any], tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    mixed = {name: t.bfloat16() if "query" in name else t for name, t in tensors.items()}
    save_file(mixed, base / "model.safetensors", {"format": "pt"})
    result = merge(str(base), str(adapter_for(base)), str(tmp_path / "merged"))
    assert (len(found[0]), result.dtype) == (1, "float32")
    written = load_file(result.folder / "model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.float32}


def test_tensors_that_the_model_does_not_load_are_left_out(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    other_head = {"cls.predictions.bias": torch.zeros(128)}
    save_file(tensors | other_head, base / "model.safetensors", {"format": "pt"})
    result = merge(str(base), str(adapter_for(base)), str(tmp_path / "merged"))
    written = load_file(result.folder / "model.safetensors")
    assert written.keys() == dict(AUTO.from_pretrained(result.folder).named_parameters()).keys()


def test_renamed_weights_take_the_whole_model(found: list[Any], tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("Norm.bias", "Norm.beta"): t
        for name, t in load_file(base / "model.safetensors").items()
    }
    assert any(name.endswith("gamma") for name in old)
    save_file(old, base / "model.safetensors", {"format": "pt"})
    result = merge(str(base), str(adapter_for(base)), str(tmp_path / "merged"))
    assert (found, result.difference <= 1e-5) == ([None], True)


def test_a_pickled_checkpoint_takes_the_whole_model(found: list[Any], tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    adapter = adapter_for(base)
    (base / "model.safetensors").unlink()
    result = merge(str(base), str(adapter), str(tmp_path / "merged"))
    assert (found, result.difference <= 1e-5) == ([None], True)


def test_every_parameter_must_be_in_the_checkpoint(tmp_path: Path) -> None:
    """Under its name, in its shape, with its value, or trained."""
    model = tiny_model()
    model.save_pretrained(tmp_path)
    files = checkpoint_files(ModelSection(name=str(tmp_path)))
    tensors = load_file(files[0])
    assert find_layout(model, files, trained=()) == [list(tensors)]
    name = "bert.embeddings.LayerNorm.weight"
    for other in (None, tensors[name] + 1, tensors[name][:-1].clone()):
        changed = {n: t for n, t in (tensors | {name: other}).items() if t is not None}
        save_file(changed, files[0], {"format": "pt"})
        assert find_layout(model, files, trained=()) is None
        assert find_layout(model, files, trained=[name]) is not None


@pytest.mark.parametrize("value", [1.0, -0.0])
def test_a_wrong_weight_is_found(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an embedding that no probe reads; even the sign of a zero."""
    base = save_base(tmp_path / "base")
    name = "embeddings.position_embeddings.weight"
    tensors = load_file(base / "model.safetensors")
    tensors[name][-1, -2:] = torch.tensor([torch.nan, 0.0])
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    adapter = adapter_for(base)

    def save_wrong(tensors: dict[str, torch.Tensor], *args: Any) -> None:
        wrong = tensors[f"bert.{name}"].clone()
        wrong[-1, -1] = value
        save_file(tensors | {f"bert.{name}": wrong}, *args)

    monkeypatch.setattr(shards, "save_file", save_wrong)
    with pytest.raises(MergeError, match=r"position_embeddings\.weight was not written"):
        merge(str(base), str(adapter), str(tmp_path / "out" / "merged"))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shards, "save_file", fail)
    base = save_base(tmp_path / "base")
    out = str(tmp_path / "out" / "merged")
    with pytest.raises(OSError, match="No space left on device") as caught:
        merge(str(base), str(adapter_for(base)), out)
    assert caught.value.filename == out
    assert not (tmp_path / "out").exists()
