"""Plots in the terminal: every line can be found, and nothing is printed over it."""

from io import StringIO

import pytest
from rich.console import Console

from dcft_cli.console import plots
from dcft_cli.console.plots import show_plots
from dcft_cli.runs.curves import Curves

ROLES = ["Q", "K", "V", "O", "FFN_IN", "FFN_OUT"]
RISING = [(step, step / 100) for step in range(1, 101)]


def shown(monkeypatch: pytest.MonkeyPatch, *runs: Curves, width: int) -> list[str]:
    screen = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(plots, "out", screen)
    show_plots(runs)
    output = screen.file
    assert isinstance(output, StringIO)
    return output.getvalue().splitlines()


def run(name: str) -> Curves:
    norms = {role: [(0, 1.0), (1, 1.0)] for role in ROLES}  # the same line six times
    return Curves(name, "f1", RISING, [(10, 0.5), (20, 1.0)], {}, norms)


@pytest.mark.parametrize("width", [80, 120])
def test_equal_lines_differ_by_their_marks_not_by_color(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    lines = shown(monkeypatch, run("first"), width=width)
    assert max(map(len, lines)) <= min(width, 100)
    legend = next(n for n, line in enumerate(lines) if "FFN_IN" in line)
    assert lines[legend].split() == [
        part for pair in zip("*+xo#@", ROLES, strict=True) for part in pair
    ]
    assert not any("│" in line for line in lines[legend:])  # below its plot
    drawn = "".join(line.partition("┤")[2] for line in lines[legend - 13 : legend])
    assert {drawn.count(mark) >= 8 for mark in "*+xo#@"} == {True}


def test_a_legend_is_never_over_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, run("first"), width=80)
    assert [line for line in lines if "first" in line and "|dW|" not in line] == [
        "first",
        "first: f1",
    ]


def test_the_legends_of_many_runs_are_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"some-long-run-name-{n}" for n in range(8)]
    lines = shown(monkeypatch, *map(run, names), width=80)
    assert max(map(len, lines)) <= 80
    (title,) = (n for n, line in enumerate(lines) if "score by step" in line)
    above = " ".join(lines[:title])
    assert all(f"{mark} {name}" in above for mark, name in zip("*+xo#@%&", names, strict=True))
