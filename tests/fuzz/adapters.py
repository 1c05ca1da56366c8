"""Mutated adapter files, most with correct checksums, so that what is behind them is reached."""

import io
import json
import math
import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch

from dcft_cli import DCFTConfig, inject, load_adapter, save_adapter
from dcft_cli.adapter_file.contents import AdapterContents
from dcft_cli.adapter_file.read import checksum, read_contents
from dcft_cli.console.inspections import show_inspection
from dcft_cli.errors import printable
from dcft_cli.methods.load import settings_of
from dcft_cli.runs.adapted import recipe_of
from dcft_cli.runs.inspect_adapter import inspect
from tests.families import tiny_model
from tests.fuzz.mutations import mutate_bytes, mutate_value
from tests.methods.attached import attach

_INFO = {
    "task": {"type": "classification", "labels": ["a", "b"], "calibrate": True},
    "data": {"text": ["text"], "label": "label", "max_length": 64},
    "model": {"dtype": "float32"},
    "decision": {"temperature": 1.5},
}


def seeds(folder: Path) -> list[bytes]:
    """Return valid files: two DCFT adapters, and one of another method."""
    files = []
    for number, dtype in enumerate((torch.float32, torch.bfloat16)):
        model = inject(tiny_model(), DCFTConfig(kernel_size=5 - number, init="normal"))
        path = save_adapter(
            model, folder / f"{number}.safetensors", base_name="tiny/bert", info=_INFO, dtype=dtype
        )
        files.append(path.read_bytes())
    method = attach("nola", tiny_model(), rank=2, bases=4)
    path = folder / "nola.safetensors"
    base = {"name": "tiny/bert", "revision": None, "fingerprint": f"sha256:{'0' * 64}"}
    method.save(path, base=base, info=_INFO)
    return [*files, path.read_bytes()]


def mutate(seed: bytes, random: Random) -> bytes:
    """Damage a file: its bytes, its header, its description, or its values."""
    kind = random.randrange(10)
    if kind < 3:
        return mutate_bytes(seed, random)
    header, body = _split(seed)
    if kind < 5:
        return _join(mutate_value(header, random), body)
    if kind < 6:
        return _with_values(header, bytearray(body), random)
    text = _described(header)
    if kind < 7:
        return _join(_describe(header, mutate_bytes(text, random)), body)
    description = json.loads(text)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        description = mutate_value(description, random)
    # Half of a character can be written only as an escape.
    return _join(_describe(header, json.dumps(description).encode()), body)


def check(data: bytes, path: Path) -> bool:
    """Read a file, and use it where it is accepted: show it, and load it into its base model.

    Raises:
        DCFTError: it is refused.
    """
    path.write_bytes(data)
    contents = read_contents(path)
    found = inspect(str(path))
    json.dumps(found.to_json(), allow_nan=False).encode()
    with redirect_stdout(io.StringIO()) as shown:
        show_inspection(found)
    assert printable(shown.getvalue()) == shown.getvalue()
    assert all(math.isfinite(norm) for norm in found.norms.values())
    recipe_of(path, contents)
    settings_of(contents)
    if isinstance(contents, AdapterContents):
        load_adapter(tiny_model(), path, check_base=False)
    return True


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:end]), data[end:]


def _join(header: object, body: bytes) -> bytes:
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + body


@cache
def _decompressed(text: str) -> bytes:
    return zlib.decompress(b64decode(text))


def _described(header: dict[str, Any]) -> bytes:
    return _decompressed(header["__metadata__"]["dcft"])


def _describe(header: dict[str, Any], text: bytes) -> dict[str, Any]:
    packed = b64encode(zlib.compress(text)).decode()
    crc = checksum(packed.encode())
    metadata = {**header["__metadata__"], "dcft": packed, "dcft_crc32": crc}
    return {**header, "__metadata__": metadata}


def _with_values(header: dict[str, Any], body: bytearray, random: Random) -> bytes:
    """Overwrite values with special ones, and correct the checksums."""
    at = random.randrange(len(body) // 4) * 4
    values: Sequence[float] = (math.nan, math.inf, -math.inf, 3.4e38, -3.4e38, 1e-45, 0.0)
    body[at : at + 4] = struct.pack("<f", random.choice(values))
    description = json.loads(_described(header))
    names = ["adapter"] if "config" in description else []
    names += [f"adapter.{name}" for name in description.get("tensors", ())]
    names += [f"head.{name}" for name in description["head"]]
    spans = [header[name]["data_offsets"] for name in names]
    description["checksums"] = [checksum(bytes(body[start:end])) for start, end in spans]
    return _join(_describe(header, json.dumps(description).encode()), bytes(body))
