"""The two streams, errors, and numbers as they are written."""

import json

import pytest

from dcft_cli.console.output import out, print_error, print_json, print_note
from dcft_cli.console.tables import _short, in_bytes
from dcft_cli.errors import DCFTError

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


def test_lines_stay_whole_in_a_pipe(capfd: Capture) -> None:
    path = "/a/long/path" * 40
    print_error(DCFTError(path, path))
    print_note(path)
    assert [len(line) for line in capfd.readouterr().err.splitlines()] == [487, 486, 486]
    out.print(path)
    assert capfd.readouterr().out == f"{path}\n"


def test_json_is_data_alone(capfd: Capture) -> None:
    data = {"name": "[bold]é[/bold]", "numbers": [1, 2.5, None], "long": "x" * 500}
    print_json(data)
    said = capfd.readouterr()
    assert json.loads(said.out) == data
    assert said.err == ""


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (57_272, "57.3 kB"),
        (12_345_678, "12.3 MB"),
        (1_740_000_000, "1.7 GB"),
        (5_000_000_000_000, "5000.0 GB"),
    ],
)
def testin_bytes(number: int, text: str) -> None:
    assert in_bytes(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(7, "7"), (8_402, "8.4K"), (22_713_985, "22.7M"), (1_566_000_000, "1.6B")],
)
def test_large_numbers(number: int, text: str) -> None:
    assert _short(number) == text
