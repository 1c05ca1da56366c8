"""From a method's file back to a model: what a file may ask for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcft_cli.adapter_file.contents import BaselineContents
from dcft_cli.adapter_file.read import read_contents
from dcft_cli.errors import AdapterFileError
from dcft_cli.methods.load import load_method
from tests.families import tiny_model
from tests.methods.attached import attach

BASE = {"name": "base", "revision": None, "fingerprint": "sha256:" + "0" * 64}
SETTINGS: dict[str, tuple[str, int]] = {
    "lora": ("rank", 10**7),
    "vera": ("rank", 10**7),
    "houlsby": ("bottleneck", 10**7),
    "nola": ("bases", 10**7),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_file_cannot_ask_for_all_memory(name: str, tmp_path: Path) -> None:
    """Its settings are checked before tensors of their size are made."""
    setting, value = SETTINGS[name]
    attach(name, tiny_model()).save(tmp_path, base=BASE, info={})
    contents: Any = read_contents(tmp_path / "adapter.safetensors")
    assert isinstance(contents, BaselineContents)
    greedy = replace(contents, settings={**contents.settings, setting: value})
    with pytest.raises(AdapterFileError, match=rf"{setting}.* (8192|65536)"):
        load_method(tiny_model(), greedy)
