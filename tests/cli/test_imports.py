"""What must be quick is quick: no torch for help, version, recipe mistakes and adapter files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dcft_cli import DCFTConfig, __version__, inject, save_adapter
from tests.families import tiny_model

HEAVY = ("torch", "transformers", "datasets", "accelerate", "sklearn", "scipy", "pandas")
PROBE = """
import sys
from dcft_cli.cli import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    print("code", done.code)
print("imported", [name for name in {heavy!r} if name in sys.modules])
"""


def probe(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE.format(heavy=HEAVY), *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("imported []\n"), done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--help"],
            ["train", "eval", "predict", "merge", "inspect", "init", "recipes", "--version"],
        ),
        (["-h"], ["train", "eval", "merge", "inspect"]),
        (["train", "--help"], ["RECIPE", "KEY=VALUE", "--output", "--dry-run", "--resume"]),
        (["sweep", "--help"], ["RECIPE", "--grid", "--tune", "--trials", "--seeds", "--jobs"]),
        (["eval", "--help"], ["ADAPTER", "KEY=VALUE", "--json"]),
        (["predict", "--help"], ["ADAPTER", "FILE", "--text", "--output", "--format"]),
        (["merge", "--help"], ["BASE", "ADAPTER", "OUT", "--debug"]),
        (["inspect", "--help"], ["SOURCE", "KEY=VALUE", "--json"]),
        (["report", "--help"], ["RUNS", "--html", "--markdown", "--csv", "--reference", "--json"]),
        (["init", "--help"], ["DATA", "--text", "--label", "--task", "--validation"]),
        (["train", "--help-settings"], ["training.learning_rate", "default 0.005"]),
        (["recipes", "list"], ["recipes/rte.yaml"]),
        (["validate", "recipes/rte.yaml"], ["ok"]),
        (["schema"], ["learning_rate"]),
        (["--version"], [__version__]),
    ],
)
def test_help(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    output = probe(*arguments, cwd=tmp_path)
    assert "code 0" in output
    assert all(word in output for word in words)


def test_inspecting_a_file_needs_no_torch(tmp_path: Path) -> None:
    save_adapter(inject(tiny_model(), DCFTConfig()), tmp_path)
    for arguments in (["inspect", "adapter.safetensors", "--json"], ["inspect", "."]):
        output = probe(*arguments, cwd=tmp_path)
        assert "code 0" in output
        assert "828" in output


def test_mistakes_in_a_recipe_need_no_torch(tmp_path: Path) -> None:
    assert "code 2" in probe("train", "recipes/rte.yaml", "training.epoch=3", cwd=tmp_path)
    assert "code 2" in probe("train", "recipes/rta.yaml", cwd=tmp_path)
    assert "code 2" in probe("inspect", "nowhere", cwd=tmp_path)
    sweep = ("sweep", "recipes/rte.yaml", "--grid", "adapter.rank=0,1")
    assert "code 2" in probe(*sweep, cwd=tmp_path)
    assert "code 2" in probe("train", "recipes/rte.yaml", "--lr", "3", cwd=tmp_path)


def test_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dcft_cli", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"dcft {__version__}\n"


def test_the_python_interface_is_lazy() -> None:
    code = """
import sys, dcft_cli
assert "torch" not in sys.modules
assert dcft_cli.DCFTConfig(kernel_size=2).effective_stride == 2
assert "torch" not in sys.modules
dcft_cli.inject
assert "torch" in sys.modules and "transformers" not in sys.modules
for name in dcft_cli.__all__:
    getattr(dcft_cli, name)
try:
    dcft_cli.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
