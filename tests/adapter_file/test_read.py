"""Adapter files read without torch: what they tell, and every kind of damage told apart."""

import json
import struct
import subprocess
import sys
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dcft_cli import adapter_layers, load_adapter, save_adapter
from dcft_cli.adapter.inject import head_parameters
from dcft_cli.adapter_file.fingerprint import fingerprint
from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.adapter_file.spec import Module
from dcft_cli.errors import AdapterFileError
from tests.adapter_file.test_write import trained
from tests.families import tiny_model
from tests.small import Fused, SmallExperts, TransposedExperts, adapt, delta_of, linear


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return save_adapter(trained(), tmp_path / "adapter.safetensors", base_name="tiny/bert")


def test_contents_are_readable_without_torch(adapter: Path) -> None:
    code = f"""
import sys
from dcft_cli.adapter_file.read import read_adapter
print(read_adapter({str(adapter)!r}).adapter_parameters)
assert 'torch' not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    layers = adapter_layers(trained()).values()
    assert int(run.stdout) == sum(p.numel() for m in layers for p in (m.A, m.B, m.C))


@pytest.mark.parametrize("stride", [None, 1, 2])
def test_contents_describe_the_model(tmp_path: Path, stride: int | None) -> None:
    model = trained(stride=stride, rank=2)
    info = {"task": {"kind": "classification"}, "labels": ["a", "b"], "max_length": 64}
    path = save_adapter(model, tmp_path / "a.safetensors", base_revision="v1", info=info)
    contents, layers = read_adapter(path), adapter_layers(model)
    assert contents.info == info
    assert contents.file_bytes == path.stat().st_size
    assert contents.base == {
        "name": None,
        "revision": "v1",
        "fingerprint": fingerprint(model, exclude=head_parameters(model).keys()),
    }
    assert contents.adapter_parameters == sum(
        p.numel() for layer in layers.values() for p in (layer.A, layer.B, layer.C)
    )
    assert contents.head_parameters == sum(p.numel() for p in head_parameters(model).values())
    for module in contents.modules:
        norm = torch.linalg.norm(layers[module.name].delta_weight()).item()
        assert contents.delta_norm(module) == pytest.approx(norm, rel=1e-5)


def test_slices_and_stacks(tmp_path: Path) -> None:
    """Rows and count are in the file, and norms computed in numpy are those of dW in torch."""
    model = nn.ModuleDict(
        {
            "attn": Fused(),
            "whole": Fused(),
            "experts": SmallExperts(),
            "turned": TransposedExperts(),
            "plain": linear(10, 7),
        }
    )
    settings = {"kernel_size": 4, "stride": 3, "rank": 2, "scale": 1.5}
    adapt(model, "Q", "V", "whole.qkv", "*.up_proj", "plain", **settings)
    path = save_adapter(model, tmp_path)
    contents, layers = read_adapter(path), adapter_layers(model)
    assert [(m.name, m.weight, m.rows, m.count) for m in contents.modules] == [
        ("attn.qkv.Q", "attn.qkv.weight", (0, 6), None),
        ("attn.qkv.V", "attn.qkv.weight", (12, 18), None),
        ("whole.qkv", "whole.qkv.weight", None, None),
        ("experts.up_proj", "experts.up_proj", None, 3),
        ("turned.up_proj", "turned.up_proj", None, 3),
        ("plain", "plain.weight", None, None),
    ]
    sizes = [(m.out_features, m.in_features) for m in contents.modules]
    assert sizes == [(6, 6), (6, 6), (18, 6), (10, 6), (10, 6), (10, 7)]
    for module in contents.modules:
        layer = layers[module.name]
        norm = delta_of(layer).norm().item()
        assert contents.delta_norm(module) == pytest.approx(norm, rel=1e-9)
        assert module.parameters(contents.config) == sum(p.numel() for p in layer.parameters())
        assert module.full_parameters == layer.delta_weight().numel() // (
            3 if module.name.startswith("attn") else 1
        )
    assert contents.adapter_parameters == sum(
        p.numel() for layer in layers.values() for p in layer.parameters()
    )
    # What is not there is not written.
    described = _description(_header(path))["modules"]
    written = [",".join({"rows", "count"} & module.keys()) for module in described]
    assert written == ["rows", "rows", "", "count", "count", ""]


def test_counts_of_a_stack() -> None:
    one = Module("it", "FFN_IN", 10, 6, "it.weight")
    stack = Module("it", "FFN_IN", 10, 6, "it.weight", count=3)
    config = next(iter(adapter_layers(adapt(nn.Sequential(linear(2, 2)), "0")).values())).config
    assert stack.parameters(config) == 3 * one.parameters(config)
    assert stack.lora_parameters == 3 * one.lora_parameters == 48
    assert stack.full_parameters == 3 * one.full_parameters == 180


def _header(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])


def _description(header: dict) -> dict:
    return json.loads(zlib.decompress(b64decode(header["__metadata__"]["dcft"])))


def rewrite(path: Path, change: Callable[[dict, bytearray], None]) -> None:
    """Changes header and body of a file."""
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8:end]), bytearray(data[end:])
    change(header, body)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(body))


def damage(kind: str, header: dict, body: bytearray) -> None:
    metadata = header["__metadata__"]
    match kind:
        case "flipped byte":
            body[header["adapter"]["data_offsets"][0]] ^= 1
        case "other scale":
            described = {**_description(header), "config": {"scale": 4.0}}
            metadata["dcft"] = b64encode(zlib.compress(json.dumps(described).encode())).decode()
        case "newer version":
            metadata["dcft_format"] = "4"
        case "older version":
            del metadata["dcft_format"]
        case "renamed tensor":
            header["surprise"] = header.pop("adapter")
        case "added tensor":
            header["surprise"] = {"dtype": "F32", "shape": [0], "data_offsets": [len(body)] * 2}
        case "other shape":
            header["head.classifier.weight"]["shape"].reverse()
        case "other dtype":
            header["adapter"]["dtype"] = "I32"
        case "no description":
            del metadata["dcft"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("flipped byte", "altered: adapter"),
        ("other scale", "altered: its description"),
        ("newer version", "format version 4"),
        ("older version", "format version 2 or older"),
        ("renamed tensor", "lacks the tensor adapter"),
        ("added tensor", "unexpected tensor: .*surprise"),
        ("other shape", r"expected the tensor head\.classifier\.weight as F32 .* found F32"),
        ("other dtype", "expected the tensor adapter as F32 .* found I32"),
        ("no description", "not a DCFT adapter"),
    ],
)
def test_damage_is_named(adapter: Path, kind: str, message: str) -> None:
    rewrite(adapter, partial(damage, kind))
    with pytest.raises(AdapterFileError, match=message) as caught:
        load_adapter(tiny_model(), adapter)
    assert str(adapter) in caught.value.message


@pytest.mark.parametrize("kept", [0, 5, 100, -1, -200])
def test_truncated_file(adapter: Path, kept: int) -> None:
    adapter.write_bytes(adapter.read_bytes()[:kept])
    with pytest.raises(AdapterFileError, match="truncated"):
        read_adapter(adapter)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a safetensors file at all, but long enough")
    (tmp_path / "list").write_bytes(struct.pack("<Q", 2) + b"[]")
    (tmp_path / "numbers").write_bytes(struct.pack("<Q", 16) + np.zeros(4, "<f8").tobytes())
    for name in ("text", "list", "numbers", "missing"):
        with pytest.raises(AdapterFileError, match=name):
            read_adapter(tmp_path / name)
