"""Adapter files: read back in a fresh process, and every kind of damage told apart."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dcft_cli import DCFTConfig, adapter_layers, inject, load_adapter, save_adapter
from dcft_cli.adapter.contents import read_adapter
from dcft_cli.adapter.fingerprint import fingerprint
from dcft_cli.adapter.inject import head_parameters
from dcft_cli.errors import AdapterFileError, ModelError, TargetError
from tests.families import tiny_model, tokens


def trained(family: str = "bert", **settings: object) -> nn.Module:
    model = inject(tiny_model(family), DCFTConfig(kernel_size=5, scale=2.0, **settings))
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return save_adapter(trained(), tmp_path / "adapter.safetensors", base_name="tiny/bert")


def test_loaded_adapter_gives_the_same_outputs_in_a_fresh_process(
    adapter: Path, tmp_path: Path
) -> None:
    code = f"""
import torch
from dcft_cli import load_adapter
from tests.families import tiny_model, tokens
model = load_adapter(tiny_model(), {str(adapter)!r})
torch.save(model(**tokens()).logits, {str(tmp_path / "logits")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    logits = torch.load(tmp_path / "logits", weights_only=True)
    assert torch.equal(logits, trained()(**tokens()).logits)


def test_loading_restores_settings_roles_head_and_what_is_trained(adapter: Path) -> None:
    model, original = load_adapter(tiny_model(), adapter.parent), trained()
    assert model(**tokens()).logits.equal(original(**tokens()).logits)
    assert head_parameters(model).keys() == head_parameters(original).keys()
    for name, layer in adapter_layers(original).items():
        loaded = adapter_layers(model)[name]
        assert (loaded.role, loaded.config.scale) == (layer.role, 2.0)
        assert loaded.A.requires_grad and not loaded.weight.requires_grad
    with pytest.raises(TargetError, match="already"):
        load_adapter(model, adapter)


def test_contents_are_readable_without_torch(adapter: Path) -> None:
    code = f"""
import sys
from dcft_cli.adapter.contents import read_adapter
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
        norm = torch.linalg.norm(layers[module.name].increment()).item()
        assert contents.increment_norm(module) == pytest.approx(norm, rel=1e-5)


def test_the_same_adapter_gives_the_same_bytes(adapter: Path, tmp_path: Path) -> None:
    again = save_adapter(trained(), tmp_path / "again.safetensors", base_name="tiny/bert")
    assert again.read_bytes() == adapter.read_bytes()


def test_file_is_an_ordinary_safetensors_file(adapter: Path) -> None:
    tensors = load_file(adapter)
    assert {name.split(".")[0] for name in tensors} == {"adapter", "head"}
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


def test_fingerprint_ignores_adapters_head_and_precision_but_no_weight() -> None:
    model = tiny_model()
    head = ["classifier.weight", "classifier.bias"]
    plain = fingerprint(model, exclude=head)
    nn.init.normal_(model.classifier.weight)
    assert fingerprint(inject(model, DCFTConfig()), exclude=head) == plain
    assert fingerprint(tiny_model().bfloat16(), exclude=head) == plain
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[7, 3] += 0.1
    assert fingerprint(model, exclude=head) != plain


def rewrite(path: Path, change: Callable[[dict, bytearray], None], *, sign: bool = False) -> None:
    """Changes header and body of a file; `sign` gives the description a fresh checksum."""
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8:end]), bytearray(data[end:])
    description = json.loads(header["__metadata__"]["dcft"])
    header["description"] = description
    change(header, body)
    if sign:
        from dcft_cli.adapter.contents import checksum

        text = json.dumps(header["description"])
        header["__metadata__"] |= {"dcft": text, "dcft_crc32": checksum(text.encode())}
    del header["description"]
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(body))


NAME = "adapter.bert.encoder.layer.0.attention.self.query.A"


def flip_a_byte(header: dict, body: bytearray) -> None:
    body[header[NAME]["data_offsets"][0]] ^= 1


def other_scale(header: dict, body: bytearray) -> None:
    meta = header["__metadata__"]
    meta["dcft"] = meta["dcft"].replace('"scale":2.0', '"scale":4.0')


def newer_version(header: dict, body: bytearray) -> None:
    header["description"]["format_version"] = 2


def rename_tensor(header: dict, body: bytearray) -> None:
    header["surprise"] = header.pop(NAME)


def add_tensor(header: dict, body: bytearray) -> None:
    header["surprise"] = header[NAME]


def other_shape(header: dict, body: bytearray) -> None:
    header[NAME]["shape"].reverse()


def other_dtype(header: dict, body: bytearray) -> None:
    header[NAME]["dtype"] = "I32"


def no_description(header: dict, body: bytearray) -> None:
    del header["__metadata__"]["dcft"]


@pytest.mark.parametrize(
    ("change", "sign", "message"),
    [
        (flip_a_byte, False, f"altered: {NAME}"),
        (other_scale, False, "altered: its description"),
        (newer_version, True, "format version 2"),
        (rename_tensor, False, f"lacks the tensor {NAME}"),
        (add_tensor, False, "tensor surprise"),
        (other_shape, False, f"{NAME} is F32"),
        (other_dtype, False, f"{NAME} is I32"),
        (no_description, False, "not a DCFT adapter"),
    ],
)
def test_damage_is_named(
    adapter: Path, change: Callable[[dict, bytearray], None], sign: bool, message: str
) -> None:
    rewrite(adapter, change, sign=sign)
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


def test_wrong_base(adapter: Path) -> None:
    other = tiny_model()
    nn.init.normal_(other.bert.encoder.layer[0].output.dense.weight)
    with pytest.raises(AdapterFileError, match="trained on other base weights: tiny/bert"):
        load_adapter(other, adapter)
    load_adapter(other, adapter, check_base=False)
    with pytest.raises(AdapterFileError, match="does not fit this model"):
        load_adapter(tiny_model("roberta"), adapter)
    with pytest.raises(AdapterFileError, match=r"classifier\.weight of shape \(2, 16\)"):
        load_adapter(tiny_model(num_labels=3), adapter)


def test_a_failed_write_leaves_the_old_file(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = adapter.read_bytes()

    def full_disk(self: Path, data: bytes) -> int:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="space"):
        save_adapter(trained(), adapter)
    assert adapter.read_bytes() == before
    assert [p.name for p in adapter.parent.iterdir()] == [adapter.name]


def test_saving_a_model_without_adapters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no DCFT adapters"):
        save_adapter(tiny_model(), tmp_path / "a.safetensors")
