"""The two streams, errors, and tables."""

import json
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.spec import Module
from dcft_cli.console import inspections
from dcft_cli.console.output import out, print_error, print_json, print_note
from dcft_cli.console.tables import facts
from dcft_cli.errors import DCFTError
from dcft_cli.runs.inspect_adapter import Inspection, inspect
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


def test_tables_have_no_trailing_blanks_in_a_pipe(capfd: Capture) -> None:
    out.print(facts(("short", "a"), ("name", "a longer value")), "", sep="\n")
    assert capfd.readouterr().out == "short  a\nname   a longer value\n\n"


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
    # A name may be broken, but only after a dot.
    assert len(rows[tables[0] :]) < 80 and len(tables) == 2
    names = {row[2] for row in rows[tables[1] + 1 :] if row[0] == "yes"}
    assert any(name.endswith(".") for name in names) is (width == 80)


def test_what_was_chosen_in_training_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=StringIO(), width=80)
    monkeypatch.setattr(inspections, "out", screen)
    labels = [f"label {number}" for number in range(100)]
    about = {"task": "multi_label", "labels": labels, "decision": {"temperature": 1.25}}
    config = DCFTConfig(kernel_size=4)
    modules = [Module("layer.0.query", "Q", 8, 8, "layer.0.query.weight")]
    base = {"name": "base", "fingerprint": None}
    inspections.show_inspection(
        Inspection(
            source=Path("a"),
            planned=False,
            method="dcft",
            settings=asdict(config),
            config=config,
            modules=modules,
            adapter_parameters=20,
            head_parameters=9,
            fixed=(),
            norms={},
            base=base,
            about=about,
        )
    )
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "temperature  1.2500, chosen in training" in shown
    assert "label 11, and 88 more" in " ".join(shown.split())
