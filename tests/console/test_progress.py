"""Progress of a run: lines for a pipe, a live view for a terminal."""

import time
from io import StringIO

import pytest
from rich.console import Console

from dcft_cli.console import progress as module
from dcft_cli.console.progress import LineReporter, LiveReporter, counting_rows, reporter
from dcft_cli.training.reporting import Progress, Reporter

STEP = Progress(
    step=1_250,
    total_steps=12_500,
    epoch=0.7512,
    loss=0.693147,
    learning_rate=1.2e-3,
    tokens_per_second=123_456.7,
    seconds_left=3_725.4,
)
FIRST = Progress(1, 12_500, 0.0, None, None, None, None)


def rendered(view: LiveReporter, width: int = 80) -> list[str]:
    console = Console(file=StringIO(), width=width, record=True, color_system=None)
    console.print(view.render())
    return console.export_text().splitlines()


def test_a_live_view_fits_80_columns() -> None:
    view = LiveReporter(True)
    assert rendered(view)[0].split()[1:] == ["Starting", "..."]
    view.progress(FIRST)
    assert "step 1/12500" in rendered(view)[0]
    view.logged(STEP)
    bar, figures = (line.rstrip() for line in rendered(view))
    assert bar == f"step 1250/12500  {'━' * 6}"  # a tenth of the bar, which fills the line
    assert figures == "epoch 0.75  loss 0.6931  lr 1.2e-03  123,457 tokens/s  1:02:05 left"
    assert all(len(line) <= 40 for line in rendered(view, 40))


def test_evaluations_show_their_progress() -> None:
    view = LiveReporter(True)
    view.evaluating(3, 10)
    assert rendered(view)[0].split()[1:] == ["Scoring", "3/10", "..."]
    view.progress(FIRST)
    assert rendered(view)[-1].split()[-2:] == ["Scoring", "3/10"]
    view.evaluating(10, 10)
    assert "Scoring" not in " ".join(rendered(view))


def test_plain_lines(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    view = LineReporter(True)
    view.progress(STEP)  # every step would be too much
    view.logged(STEP)
    view.logged(STEP)  # too soon
    now[0] += 6
    view.logged(FIRST)
    view.evaluating(1, 2)
    view.baseline("constant", {"accuracy": 0.5, "f1": 0.0})
    view.progress(STEP)
    view.evaluated(1_250, {"accuracy": 0.75, "f1": 2 / 3}, True, "")
    view.evaluated(1_500, {"accuracy": 0.7, "f1": 0.5}, False, "")
    view.evaluated(1_500, {"accuracy": 0.7, "f1": 0.5}, True, "< fitted head")
    view.evaluated(1_600, {"accuracy": 6.5e8, "f1": 1e12}, False, "")  # errors of large labels
    now[0] += 6
    view.logged(STEP)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "               epoch     loss",
        "step 1250       0.75   0.6931  lr 1.2e-03  123,457 tokens/s  1:02:05 left",
        "step 1          0.00",
        "               epoch     loss  accuracy       f1",
        "constant                         0.5000   0.0000",
        "step 1250       0.75   0.6931    0.7500   0.6667  best",
        "step 1500       0.75   0.6931    0.7000   0.5000",
        "step 1500       0.75   0.6931    0.7000   0.5000  best < fitted head",
        "step 1600       0.75   0.6931  6.50e+08 1.00e+12",
        f"step 1250       0.75   0.6931{'':19}  lr 1.2e-03  123,457 tokens/s  1:02:05 left",
    ]


def test_the_reporter_depends_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Console(file=StringIO())
    terminal = Console(file=StringIO(), force_terminal=True, color_system=None)
    monkeypatch.setattr(module, "err", pipe)
    with reporter() as view:
        assert type(view) is LineReporter
    with reporter(scores=False) as view:
        view.evaluated(0, {"f1": 0.5}, True, "")
        view.baseline("constant", {"f1": 0.5})
    assert pipe.file.getvalue() == "\n"  # between the progress and the results
    monkeypatch.setattr(module, "err", terminal)
    with reporter() as view:
        assert type(view) is LiveReporter
        view.progress(STEP)
        view.evaluated(1_250, {"f1": 0.5}, True, "")
    for shown in ("step 1250/12500", "step 1250       0.75   0.6931   0.5000  best"):
        assert shown in terminal.file.getvalue()
    with reporter(active=False) as view:
        assert type(view) is Reporter


def test_scores_beyond_the_width_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    narrow = Console(file=StringIO(), width=80)
    monkeypatch.setattr(module, "err", narrow)
    view = LineReporter(True)
    view.evaluated(5, {f"some_long_metric_{n}": 0.5 for n in range(9)}, True, "< fitted head")
    lines = narrow.file.getvalue().splitlines()
    assert [len(line) <= 80 for line in lines] == [True, True]
    assert "some_long_metric_0" in lines[0]


def test_rows_are_counted_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=StringIO(), width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(module, "err", screen)
    for to_file, shown in ((False, False), (True, True)):  # not among rows
        with counting_rows(True, to_file=to_file) as advance:
            advance(2048, None)
            advance(4096, 10_000)
        output = screen.file
        assert isinstance(output, StringIO)
        assert ("4,096 rows" in output.getvalue()) is shown
