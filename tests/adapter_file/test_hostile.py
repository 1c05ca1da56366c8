"""Adapter files that somebody made: refused with a reason before anything in them is used."""

import json
import math
import os
import struct
import tracemalloc
import zlib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dcft_cli import save_adapter
from dcft_cli.adapter_file.container import MAX_HEADER
from dcft_cli.adapter_file.read import MAX_DESCRIPTION, checksum, read_adapter, read_contents
from dcft_cli.cli import main
from dcft_cli.console.inspections import show_inspection
from dcft_cli.errors import AdapterFileError
from dcft_cli.runs.inspect_adapter import inspect
from tests.adapter_file.test_write import trained

ESCAPES = "\x1b]0;owned\x07\x1b[31m\u202e"

Description = dict[str, Any]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    info = {"task": {"type": "classification"}, "model": {}, "data": {"max_length": 64}}
    return save_adapter(trained(), tmp_path / "adapter.safetensors", info=info)


def described(path: Path) -> Description:
    """Return the description of a file, as JSON."""
    contents = read_adapter(path)
    modules = [{k: v for k, v in vars(m).items() if v not in (None, False)}
               for m in contents.modules]  # fmt: skip
    config = vars(contents.config)
    return {
        "method": contents.method,
        "config": {**config, "stride": contents.config.effective_stride},
        "modules": modules,
        "head": {name: list(values.shape) for name, values in contents.head.items()},
        "fixed": sorted(contents.fixed),
        "base": dict(contents.base),
        "model": dict(contents.model),
        "info": dict(contents.info),
        "versions": dict(contents.versions),
    }


def write(path: Path, description: Description | bytes, tensors: dict[str, Any]) -> None:
    """Write a file with correct checksums."""
    body, header = b"", {}
    for name, values in tensors.items():
        data = np.asarray(values, "<f4").tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(np.shape(values)), "data_offsets": offsets}
        body += data
    if isinstance(description, dict):
        sums = [checksum(np.asarray(values, "<f4").tobytes()) for values in tensors.values()]
        description = json.dumps({"checksums": sums, **description}).encode()
    text = b64encode(zlib.compress(description)).decode()
    metadata = {"dcft_format": "3", "dcft": text, "dcft_crc32": checksum(text.encode())}
    encoded = json.dumps({"__metadata__": metadata, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + body)


def stored(path: Path) -> dict[str, Any]:
    """Return the tensors of a file."""
    contents = read_adapter(path)
    factors = [v.ravel() for module in contents.factors.values() for v in module.values()]
    head = {f"head.{name}": values for name, values in contents.head.items()}
    return {"adapter": np.concatenate(factors), **head}


def test_a_rewritten_file_is_read(adapter: Path) -> None:
    before = read_adapter(adapter)
    write(adapter, described(adapter), stored(adapter))
    after = read_adapter(adapter)
    assert after.modules == before.modules and after.config == before.config
    assert after.info == before.info


def _set(*path: Any) -> Callable[[Description], None]:
    """Return a function that sets what a path leads to."""
    *steps, key, value = path

    def change(description: Description) -> None:
        part: Any = description
        for step in steps:
            part = part[step]
        part[key] = value

    return change


def _twice(description: Description) -> None:
    description["modules"].append(description["modules"][0])


def _same_weight(description: Description) -> None:
    first, second = description["modules"][:2]
    second["weight"] = first["weight"]


def _without(key: str) -> Callable[[Description], None]:
    return lambda description: description.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("modules", 3), r"modules: .* array"),
        (_set("modules", []), "modules: "),
        (_set("modules", 1, {}), r"modules\[1\]\.name: Field required"),
        (_set("modules", 0, "out_features", -4), r"modules\[0\]\.out_features: "),
        (_set("modules", 0, "in_features", 2**40), r"modules\[0\]\.in_features: "),
        (_set("modules", 0, "in_features", True), r"modules\[0\]\.in_features: "),
        (_set("modules", 0, "count", 0), r"modules\[0\]\.count: "),
        (_set("modules", 0, "rows", [0]), r"modules\[0\]\.rows"),
        (_set("modules", 0, "rows", [0, 3]), "rows must be out_features rows"),
        (_set("modules", 0, "rows", [-16, 0]), "rows must be out_features rows"),
        (_set("modules", 0, "surprise", 1), r"modules\[0\]\.surprise: "),
        (_twice, "two modules have the same name"),
        (_same_weight, "two modules change the same rows of bert"),
        (_set("config", "kernel_size", 0), r"config\.kernel_size: "),
        (_set("config", "stride", 9), "stride must be 1 to kernel_size"),
        (_set("config", "scale", 1e300), r"config\.scale: "),
        (_set("config", "init", "zeros"), r"config\.init: "),
        (_set("head", "classifier.bias", -1), r"head\.classifier\.bias: "),
        (_set("head", "classifier.bias", [-2]), r"head\.classifier\.bias\[0\]: "),
        (_set("base", None), "base: "),
        (_set("base", "fingerprint", "sha256:0"), r"base\.fingerprint: "),
        (_set("model", "labels", "ab"), r"model\.labels: "),
        (_set("model", "class", None), r"model\.class: "),
        (_set("model", "problem_type", "none"), r"model\.problem_type: "),
        (_set("info", "text"), "info: "),
        (_set("versions", "torch", 2), r"versions\.torch: "),
        (_set("checksums", ["xyz"]), r"checksums\[0\]: "),
        (_set("checksums", []), "0 checksums for 3 tensors"),
        (_set("method", 1), "method: "),
        (_without("info"), "info: Field required"),
    ],
)
def test_every_entry_is_checked(
    adapter: Path, change: Callable[[Description], None], message: str
) -> None:
    description = described(adapter)
    tensors = stored(adapter)
    change(description)
    write(adapter, description, tensors)
    with pytest.raises(AdapterFileError, match=message) as caught:
        read_contents(adapter)
    assert str(adapter) in caught.value.message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "EOF"),
        (b"[]", "object"),
        (b"\xff", "utf-8|expected value"),
        (b'{"method": "dcft", "info": {"x": NaN}}', "expected value"),
        (b'{"method": "\\ud800"}', "hex escape"),
        (b'{"info": ' + b"[" * 100_000, "recursion limit"),
        (b'{"info": ' + b"9" * 100_000 + b"}", "out of range"),
        (b" " * (MAX_DESCRIPTION + 1), f"longer than {MAX_DESCRIPTION:,} bytes"),
    ],
    ids=["empty", "list", "bytes", "nan", "surrogate", "nested", "digits", "bomb"],
)
def test_a_description_that_is_no_json(tmp_path: Path, text: bytes, reason: str) -> None:
    write(tmp_path / "file", text, {})
    with pytest.raises(AdapterFileError, match=rf"breaks the format \(.*({reason})"):
        read_contents(tmp_path / "file")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["adapter", "head.classifier.bias"])
def test_values_that_are_not_finite(adapter: Path, value: float, name: str) -> None:
    tensors = stored(adapter)
    tensors[name] = tensors[name].copy()
    tensors[name].flat[1] = value
    write(adapter, described(adapter), tensors)
    with pytest.raises(AdapterFileError, match=f"NaN or infinity: {name}"):
        read_contents(adapter)


@pytest.mark.parametrize("length", [100, MAX_HEADER + 1, 2 << 30, 3 << 30, 2**64 - 1])
def test_a_sparse_file_of_gigabytes_is_not_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", length) + b'{"a": 1}')
        file.truncate(3 << 30)
    tracemalloc.start()
    with pytest.raises(AdapterFileError, match="truncated or damaged"):
        read_contents(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_valid_header_above_the_limit_is_not_read(adapter: Path) -> None:
    data = adapter.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]

    def pad(size: int) -> None:
        adapter.write_bytes(struct.pack("<Q", size) + data[8:end].ljust(size) + data[end:])

    pad(MAX_HEADER)
    assert read_adapter(adapter).modules
    pad(MAX_HEADER + 1)
    with pytest.raises(AdapterFileError, match=f"at most {MAX_HEADER:,} are read"):
        read_adapter(adapter)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AdapterFileError, match="is not a file"):
        read_contents(tmp_path / "pipe")


def test_a_norm_that_would_take_gigabytes_is_left_out(adapter: Path) -> None:
    """A file of 2 MB can describe a module whose placed windows take 64 GB."""
    description = described(adapter)
    size, kernel = 2**24, 512
    windows = -(-(size - kernel) // kernel) + 1
    module = {"name": "m", "role": "Q", "weight": "m.weight"}
    description["modules"] = [{**module, "out_features": kernel, "in_features": size}]
    description["config"] |= {"kernel_size": kernel, "stride": kernel, "rank": 1}
    description["head"] = {}
    write(adapter, description, {"adapter": np.ones(windows + 1 + kernel**2)})
    assert adapter.stat().st_size < 2_000_000
    found = inspect(str(adapter))
    assert found.norms == {}
    assert found.to_json()["modules"][0]["norm"] is None


@pytest.mark.parametrize(
    "info",
    [
        {"task": "classification"},
        {"task": {"type": 3}},
        {"data": []},
        {"data": {"max_length": "__import__('os').system('true')"}},
        {"decision": {"temperature": "hot"}},
        {"decision": {"thresholds": {"a": None}}},
        {"model": 1},
    ],
)
def test_info_of_other_forms_is_shown_and_not_used(adapter: Path, info: Description) -> None:
    write(adapter, {**described(adapter), "info": info}, stored(adapter))
    contents = read_contents(adapter)
    assert inspect(str(adapter)).about["task"] is None
    with pytest.raises(AdapterFileError, match=rf"\(info\.{next(iter(info))}"):
        contents.about()


@pytest.mark.parametrize("name", ["", ".", "..", "../../etc/passwd", ".hidden", "a..b", "*.0"])
def test_any_name_of_a_module_is_shown(
    adapter: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    description = described(adapter)
    description["modules"][0]["name"] = name
    write(adapter, description, stored(adapter))
    show_inspection(inspect(str(adapter)))
    assert "412 parameters" in capsys.readouterr().out


def test_saving_refuses_what_reading_would(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_adapter(trained(), tmp_path, info={"loss": math.nan})
    with pytest.raises(ValueError, match="shorter"):
        save_adapter(trained(), tmp_path, info={"x": "x" * MAX_DESCRIPTION})
    assert not list(tmp_path.iterdir())


def test_control_characters_are_not_printed(
    adapter: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither in errors nor in tables, whose names are no markup either."""
    description, tensors = described(adapter), stored(adapter)
    write(adapter, description, {**tensors, ESCAPES: [1.0]})
    with pytest.raises(AdapterFileError, match="unexpected tensor") as caught:
        read_contents(adapter)
    assert not set("\x1b\x07\u202e") & set(str(caught.value))
    assert "\ufffd]0;owned\ufffd\ufffd[31m\ufffd" in str(caught.value)
    description["modules"][0] |= {"name": f"{ESCAPES}[/red]", "role": f"{ESCAPES}[bold]"}
    description["base"] |= {"name": ESCAPES}
    description["versions"] = {ESCAPES: ESCAPES}
    description["model"]["labels"] = [ESCAPES, "b"]
    description["info"] = {"task": {"type": ESCAPES}}
    write(adapter, description, tensors)
    for arguments in (["inspect", str(adapter)], ["inspect", str(adapter), "--json"]):
        with pytest.raises(SystemExit) as done:
            main(arguments)
        assert not done.value.code
        out = capfd.readouterr().out
        assert "owned" in out
        assert all(character.isprintable() or character == "\n" for character in out)
        assert "--json" in arguments or ("[/red]" in out and "[bold]" in out)
