"""Threads of a command that wait for others leave the processor to other programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

_GNU = any(Path(torch.__file__).parent.glob("lib/libgomp*"))


@pytest.mark.skipif(not _GNU, reason="torch is built without GNU OpenMP")
@pytest.mark.parametrize(
    ("own", "shown"),
    [
        ({}, "GOMP_SPINCOUNT = '10000'"),
        ({"GOMP_SPINCOUNT": "7"}, "GOMP_SPINCOUNT = '7'"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "OMP_WAIT_POLICY = 'ACTIVE'"),
    ],
)
def test_they_wait_briefly_unless_told_otherwise(own: dict[str, str], shown: str) -> None:
    """The library prints its settings when it is loaded."""
    given = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-m", "dcft_cli", "env"],
        env=given | own | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown in done.stderr
    assert ("'10000'" in done.stderr) == (own == {})
