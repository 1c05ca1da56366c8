"""The environment for a bug report, also where something is broken."""

import sys
from pathlib import Path

import pytest
import torch

from dcft_cli.runs.environment import describe_environment


def test_a_broken_torch_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = describe_environment()
    assert found.threads is None
    assert "torch cannot be imported" in found.devices[0]


def test_devices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    first, second, cpu = describe_environment().devices
    assert first.startswith("GPU 0 (cuda:0, ")
    assert second.startswith("GPU 1 (cuda:1, ")
    assert cpu.startswith("CPU (")


def test_folders_need_not_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DCFT_CACHE", str(tmp_path / "not" / "yet"))
    folder = describe_environment().folders["encoded rows"]
    assert folder.path == str(tmp_path / "not" / "yet" / "encoded")
    assert folder.free_bytes is not None
