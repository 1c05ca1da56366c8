"""What `dcft inspect` prints."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.spec import Module
from dcft_cli.console import inspections
from dcft_cli.runs.inspect_adapter import Inspection


@pytest.mark.parametrize(
    ("norms", "shown"),
    [
        ([1.0, 2.33, 2.2, 3.72, 0.976, 2.4649], ["1.000..2.330", "2.200..3.720", "0.976..2.465"]),
        (
            [0.0, 1e-3, 0.01, 0.02, 0.0, 0.0],
            ["0.00000..0.00100", "0.01000..0.02000", "0.00000..0.00000"],
        ),
        ([1e-9, 12345.6, 1.0, 2.0, 0.0, 0.0], ["0..12346", "1..2", "0..0"]),
        ([0.0] * 6, ["0..0"] * 3),
        ([float("inf"), 1.0, 1.0, 1.0, 1.0, 1.0], ["1.000..inf", *["1.000..1.000"] * 2]),
    ],
)
def test_norms_of_all_layers_have_the_same_decimals(
    monkeypatch: pytest.MonkeyPatch, norms: list[float], shown: list[str]
) -> None:
    names = [(f"layer.{n}.{role}", role) for role in "QKV" for n in range(2)]
    modules = [Module(name, role, 8, 8, f"{name}.weight") for name, role in names]
    found = Inspection(
        source=Path("adapter.safetensors"),
        planned=False,
        method="dcft",
        settings={"kernel_size": 8, "rank": 1, "scale": 4.0},
        config=DCFTConfig(),
        modules=modules,
        adapter_parameters=396,
        head_parameters=0,
        fixed=(),
        norms={module.name: norm for module, norm in zip(modules, norms, strict=True)},
        base={"name": None, "fingerprint": None},
        about={},
    )
    screen = Console(file=StringIO(), width=120)
    monkeypatch.setattr(inspections, "out", screen)
    inspections.show_inspection(found)
    output = screen.file
    assert isinstance(output, StringIO)
    ranges = [line.split()[-1] for line in output.getvalue().splitlines() if ".." in line][1:]
    assert ranges == shown
