"""The two streams, errors, and tables."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dcft_cli.console import inspections
from dcft_cli.console.output import out, print_error, print_json, print_note
from dcft_cli.errors import DCFTError
from dcft_cli.runs.inspect_adapter import inspect
from dcft_cli.runs.inspect_targets import resolve
from tests.families import published

Capture = pytest.CaptureFixture[str]


def test_an_error_and_its_hint(capfd: Capture) -> None:
    print_error(DCFTError("It broke [red]here[/red].\nAnd there.", "Mend data.text=[a, b]."))
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == (
        "Error: It broke [red]here[/red].\nAnd there.\nHint: Mend data.text=[a, b].\n"
    )
    print_error(DCFTError("It broke."))
    assert capfd.readouterr().err == "Error: It broke.\n"


def test_lines_are_not_wrapped_in_a_pipe(capfd: Capture) -> None:
    path = "/a/long/path" * 40
    print_error(DCFTError(path, path))
    print_note(path)
    assert [len(line) for line in capfd.readouterr().err.splitlines()] == [487, 486, 486]
    out.print(path)
    assert capfd.readouterr().out == f"{path}\n"


def test_json_is_the_only_output(capfd: Capture) -> None:
    data = {"name": "[bold]é[/bold]", "numbers": [1, 2.5, None], "long": "x" * 500}
    print_json(data)
    said = capfd.readouterr()
    assert json.loads(said.out) == data
    assert said.err == ""


@pytest.mark.parametrize("width", [80, 120])
def test_inspections_fit_the_terminal(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published("deberta-v3-base").save_pretrained(tmp_path)
    screen = Console(file=StringIO(), width=width)
    monkeypatch.setattr(inspections, "out", screen)
    inspections.show_inspection(inspect("recipes/rte.yaml", [f"model.name={tmp_path}"]))
    inspections.show_resolution(resolve(str(tmp_path)))
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    rows = [line.split() for line in lines]
    assert "Q attention.self.query_proj 12 768 x 768 3,072".split() in rows
    tables = [n for n, row in enumerate(rows) if row[:1] in (["role"], ["target"])]
    # A name may be folded, but not to a letter per line.
    assert len(rows[tables[0] :]) < 80 and len(tables) == 2
