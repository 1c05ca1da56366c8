"""Merging tensor by tensor: the same folder as of the whole model, and when it cannot be."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from dcft_cli import DCFTConfig, adapter_layers, inject, save_adapter
from dcft_cli.adapter.inject import merge as fold
from dcft_cli.errors import AdapterFileError, MergeError
from dcft_cli.merging import merge as merging
from dcft_cli.merging import proof, streamed_merge, streaming
from dcft_cli.merging.checkpoints import MappedCheckpoint, NotStreamableError
from dcft_cli.merging.merge import DTypeChoice, MergeTask, merge
from dcft_cli.merging.merged_tensors import MergedTensors
from dcft_cli.merging.proof import InFloat32, folded_on_the_fly
from tests.architectures.tiny import tiny_config
from tests.families import save_base, tiny_tokenizer, tokens

AUTO = AutoModelForSequenceClassification


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way each merge of a test went."""
    taken: list[str] = []

    def told(name: str) -> Callable[[MergeTask], streamed_merge.Proof]:
        way = getattr(merging, name)

        def merged(task: MergeTask) -> streamed_merge.Proof:
            proof = way(task)
            taken.append(name)
            return proof

        return merged

    for name in ("merge_streamed", "merge_whole"):
        monkeypatch.setattr(merging, name, told(name))
    return taken


def adapter_for(base: Path, dtype: torch.dtype = torch.float32) -> Path:
    """An adapter in all layers, and a head of three classes, that change the answers."""
    torch.manual_seed(1)
    model, report = AUTO.from_pretrained(base, num_labels=3, dtype=dtype, output_loading_info=True)
    inject(model, DCFTConfig(kernel_size=3, stride=2, rank=2), head=report["missing_keys"])
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            nn.init.normal_(parameter, std=0.2)
    return save_adapter(model, base.with_name(f"{base.name}.safetensors"))


def both_ways(
    base: Path, adapter: Path, root: Path, monkeypatch: pytest.MonkeyPatch, dtype: DTypeChoice
) -> tuple[Path, Path]:
    merge(str(base), str(adapter), str(root / "streamed"), dtype=dtype)
    with monkeypatch.context() as patch:
        patch.setattr(merging, "merge_streamed", not_streamed)
        merge(str(base), str(adapter), str(root / "whole"), dtype=dtype)
    return root / "streamed", root / "whole"


def not_streamed(task: MergeTask) -> streamed_merge.Proof:
    raise NotStreamableError("for this test")


def same_model(a: Path, b: Path) -> None:
    first, second = (dict(AUTO.from_pretrained(f).named_parameters()) for f in (a, b))
    assert first.keys() == second.keys()
    assert {p.dtype for p in first.values()} == {p.dtype for p in second.values()}
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (a / "config.json").read_text() == (b / "config.json").read_text()


@pytest.mark.parametrize("dtype", ["base", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("held", [torch.float32, torch.bfloat16])
def test_several_files(
    held: torch.dtype, dtype: DTypeChoice, ways: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    base = save_base(tmp_path / "base")
    AutoModel.from_pretrained(base, dtype=held).save_pretrained(base, max_shard_size="8KB")
    (base / "model.safetensors").unlink(missing_ok=True)
    streamed, whole = both_ways(base, adapter_for(base, held), tmp_path, monkeypatch, dtype)
    assert ways == ["merge_streamed", "merge_whole"]
    same_model(streamed, whole)
    index = json.loads((streamed / "model.safetensors.index.json").read_text())
    files = sorted(streamed.glob("model-*.safetensors"))
    assert len(files) == len(list(base.glob("model-*.safetensors"))) > 2
    kept = {name: file.name for file in files for name in load_file(file)}
    assert index["weight_map"] == kept
    assert kept.keys() == load_file(whole / "model.safetensors").keys()
    sizes = [t.nbytes for file in files for t in load_file(file).values()]
    assert index["metadata"]["total_size"] == sum(sizes)


@pytest.mark.parametrize("model_type", ["gpt2", "qwen3", "t5", "albert", "deberta", "xlnet"])
def test_layouts(
    model_type: str, ways: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transposed, fused, shared, tied and read weights."""
    base = tmp_path / "base"
    torch.manual_seed(0)
    config = tiny_config(model_type, vocab_size=128, pad_token_id=0, eos_token_id=3)
    AutoModel.from_config(config).save_pretrained(base)
    tiny_tokenizer(eos_token="[SEP]").save_pretrained(base)
    same_model(*both_ways(base, adapter_for(base), tmp_path, monkeypatch, "bfloat16"))
    assert ways == ["merge_streamed", "merge_whole"]


def test_names_of_old(ways: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers renames them when it loads them; they stay as they are in the file."""
    base = save_base(tmp_path / "base")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("Norm.bias", "Norm.beta"): t
        for name, t in load_file(base / "model.safetensors").items()
    }
    assert any(name.endswith("gamma") for name in old)
    save_file(old, base / "model.safetensors", {"format": "pt"})
    streamed, whole = both_ways(base, adapter_for(base), tmp_path, monkeypatch, "base")
    assert ways == ["merge_streamed", "merge_whole"]
    same_model(streamed, whole)


def test_a_pickled_checkpoint(ways: list[str], tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    adapter = adapter_for(base)
    (base / "model.safetensors").unlink()
    assert merge(str(base), str(adapter), str(tmp_path / "merged")).difference <= 1e-5
    assert ways == ["merge_whole"]


def test_weights_of_two_types(ways: list[str], tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    mixed = {name: t.bfloat16() if "query" in name else t for name, t in tensors.items()}
    save_file(mixed, base / "model.safetensors", {"format": "pt"})
    result = merge(str(base), str(adapter_for(base)), str(tmp_path / "merged"))
    assert (ways, result.dtype) == (["merge_whole"], "float32")


def test_a_wrong_weight_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an embedding that no probe reads."""
    base = save_base(tmp_path / "base")
    adapter = adapter_for(base)
    write = streaming.write_merged

    def damaged(*arguments: Any, **named: Any) -> list[Path]:
        files = write(*arguments, **named)
        tensors = load_file(files[0])
        tensors["bert.embeddings.position_embeddings.weight"][-1, -1] += 1e-7
        save_file(tensors, files[0], {"format": "pt"})
        return files

    monkeypatch.setattr(streamed_merge, "write_merged", damaged)
    with pytest.raises(MergeError, match=r"position_embeddings\.weight was not written"):
        merge(str(base), str(adapter), str(tmp_path / "out" / "merged"))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told when files are flushed, at times long after they were written."""
    base = save_base(tmp_path / "base")
    adapter = adapter_for(base)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("dcft_cli.merging.streaming.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        merge(str(base), str(adapter), str(tmp_path / "out" / "merged"))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_tensor_that_cannot_be_written_stops_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_base(tmp_path / "base")
    adapter = adapter_for(base)
    formed: list[str] = []

    def parts(tensors: MergedTensors, name: str) -> Iterator[torch.Tensor]:
        formed.append(name)
        if len(formed) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sleep(0.01)  # time for those that wait to be called off
        yield from whole(tensors, name)

    whole = MergedTensors.parts
    monkeypatch.setattr(MergedTensors, "parts", parts)
    with pytest.raises(OSError, match="No space left"):
        merge(str(base), str(adapter), str(tmp_path / "out" / "merged"))
    assert len(formed) < len(load_file(base / "model.safetensors")) / 2
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool])
@pytest.mark.parametrize("length", [1, 8, 1001])
def test_bits_are_compared(dtype: torch.dtype, length: int) -> None:
    for start in (0, 1, 8):
        ones = torch.ones(start + length).to(dtype)[start:]
        other = ones.clone()
        assert streaming._same(iter([ones]), other)
        other[-1] = 0
        assert not streaming._same(iter([ones]), other)
    assert not streaming._same(iter([ones]), ones[1:])


def test_not_a_number_is_itself_and_zero_has_a_sign() -> None:
    odd = torch.tensor([float("nan"), 0.0])
    assert streaming._same(iter([odd]), odd.clone())
    assert not streaming._same(iter([odd]), torch.tensor([float("nan"), -0.0]))


def test_other_base_weights_leave_nothing(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    adapter = adapter_for(base)
    tensors = load_file(base / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][-1, -1] += 1
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(AdapterFileError, match="other base weights"):
        merge(str(base), str(adapter), str(tmp_path / "out" / "merged"))
    assert list((tmp_path / "out").iterdir()) == []


def test_released_tensors_are_read_again(tmp_path: Path) -> None:
    wanted = {"a": torch.randn(300, 300), "b": torch.randn(7), "c": torch.arange(40_000)}
    save_file(wanted, tmp_path / "file.safetensors")
    before = (tmp_path / "file.safetensors").read_bytes()
    mapped = MappedCheckpoint([tmp_path / "file.safetensors"])
    other = torch.ones(1 << 16)
    for tensor in (*mapped.tensors.values(), mapped.tensors["a"][3:].T, other):
        mapped.release(tensor)
    assert all(torch.equal(mapped.tensors[name], wanted[name]) for name in wanted)
    assert bool((other == 1).all())
    mapped.tensors["b"].zero_()
    assert (tmp_path / "file.safetensors").read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0[]"])
def test_what_is_no_safetensors_file(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.safetensors").write_bytes(damage)
    with pytest.raises(NotStreamableError):
        MappedCheckpoint([tmp_path / "file.safetensors"])


@pytest.mark.parametrize("part", [1, 100, 1 << 18])
@pytest.mark.parametrize("model_type", ["bert", "t5", "qwen3", "gpt2"])
def test_half_precision_weights_computed_in_float32(
    model_type: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "_PART", part)
    torch.manual_seed(0)
    half: PreTrainedModel = AUTO.from_config(
        tiny_config(model_type, vocab_size=128, pad_token_id=0, eos_token_id=3)
    )
    half = half.to(torch.bfloat16).eval()
    inputs = tokens()
    inputs["input_ids"][:, -1] = 3
    with torch.no_grad():
        with InFloat32(lambda tensor: None):
            found = half(**inputs).logits
        expected = half.float()(**inputs).logits
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_folded_on_the_fly_is_folded_without_rounding(model_type: str) -> None:
    torch.manual_seed(0)
    model: PreTrainedModel = AUTO.from_config(
        tiny_config(model_type, vocab_size=128, pad_token_id=0, eos_token_id=3)
    ).bfloat16()
    inject(model, DCFTConfig(kernel_size=3, rank=2)).eval()
    for layer in adapter_layers(model).values():
        nn.init.normal_(layer.C, std=0.3)
    inputs, before = tokens(), [p.clone() for p in model.parameters()]
    read: list[torch.Tensor] = []
    with torch.no_grad():
        with folded_on_the_fly(model, read.append), InFloat32(lambda tensor: None):
            found = model(**inputs).logits
        assert all(torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True))
        expected = fold(model.float())(**inputs).logits
    assert len(read) == len({id(tensor) for tensor in read}) > 4
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
