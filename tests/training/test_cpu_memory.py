"""What libraries keep: memory that a step frees, not what every size of product needs."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dcft_cli.training.cpu_memory import keep_fewer_products, keep_freed_memory

FAULTS = """
import resource, sys, torch
from dcft_cli.training.cpu_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults():
    [torch.ones(4_000_000) for _ in range(10)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
counts = [faults() for _ in range(8)]
print(counts[-1] - counts[-2])
"""


def count(script: str, how: str) -> int:
    """What a script prints in a fresh process."""
    names = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"}  # set by tests that train
    env = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", script, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is meant")
def test_freed_pages_are_used_again() -> None:
    assert count(FAULTS, "kept") <= count(FAULTS, "returned") / 2


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()


GROWTH = """
import sys, torch
from dcft_cli.acceleration.onednn import _by_onednn
from dcft_cli.training.cpu_memory import keep_fewer_products
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
if sys.argv[1] == "fewer":
    keep_fewer_products()
x, W = torch.ones(800, 128), torch.ones(8, 128)
for rows in range(100, 200):
    _by_onednn(x[:rows], W, None)
before = resident()
for rows in range(200, 800, 2):
    _by_onednn(x[:rows], W, None)
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's own counts")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
def test_products_of_many_sizes_do_not_pile_up() -> None:
    assert count(GROWTH, "fewer") <= count(GROWTH, "all") / 4


def test_what_the_environment_says_of_caches_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"LRU_CACHE_CAPACITY": "7"})
    keep_fewer_products()
    assert os.environ == {"LRU_CACHE_CAPACITY": "7", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
