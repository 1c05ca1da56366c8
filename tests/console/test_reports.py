"""Tables of scores by class and of confusions."""

from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dcft_cli.console.reports import decision_facts, report_tables
from dcft_cli.tasks.report import report_classes, report_labels

CALIBRATION = {"temperature": 2.0, "error": 0.01, "error_without_temperature": 0.2}


def lines(width: int = 80, **reports: dict[str, Any]) -> list[str]:
    screen = Console(file=StringIO(), width=width)
    screen.print(report_tables(reports))
    return [line.rstrip() for line in screen.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_scores_and_confusions() -> None:
    report = report_classes(["[red]", "b", "c"], np.array([0, 0, 0, 1]), np.array([0, 1, 1, -1]))
    assert [line.split() for line in lines(dev=report)] == [
        [],
        "class support predicted precision recall f1".split(),
        "[red] 3 1 1.0000 0.3333 0.5000".split(),
        "b 1 2 0.0000 0.0000 0.0000".split(),
        "c 0 0".split(),
        [],
        "class predicted as count of class".split(),
        "[red] b 2 66.7%".split(),
        "b (nothing) 1 100.0%".split(),
    ]


def test_of_many_classes_those_with_the_most_errors_are_shown() -> None:
    rng = np.random.default_rng(0)
    names = [f"a class whose name is long enough to be wrapped, {n}" for n in range(150)]
    labels, guesses = rng.integers(0, 150, (2, 3_000))
    predictions = np.where(labels == 149, guesses, labels)  # all errors are of the last class
    shown = lines(dev=report_classes(names, labels, predictions))
    assert max(map(len, shown)) <= 80
    assert len(shown) < 90
    assert "149" in "".join(shown[2:6])
    assert "The 20 with the most errors; 130 more with --json." in shown
    assert any(line.startswith("The 10 most frequent;") for line in shown)


@pytest.mark.parametrize("width", [80, 120])
def test_several_sets_with_thresholds(width: int) -> None:
    present = np.array([[True, False], [False, True]])
    report = report_labels(["a", "b"], present, ~present, [0.25, 0.5])
    report["calibration"] = CALIBRATION
    shown = lines(width, easy=report, hard=report)
    assert max(map(len, shown)) <= width
    title = "hard, calibration error 0.0100 (0.2000 without the temperature)"
    assert title in shown and title.replace("hard", "easy") in shown
    assert shown.count(shown[2]) == 2 and shown[2].split()[-1] == "threshold"
    assert "a 1 1 0.0000 0.0000 0.0000 0.2500".split() in map(str.split, shown)


def test_the_threshold_that_was_used_is_named() -> None:
    both = {"temperature": 1.5, "thresholds": {"a": 0.1}}
    assert decision_facts(both, ("temperature", "thresholds")) == [
        ("threshold", "one per label, chosen in training"),
        ("temperature", "1.5000, chosen in training"),
    ]
    assert decision_facts({"temperature": 1.0, "thresholds": 0.5}, ()) == [
        ("threshold", "0.5000, from the recipe")
    ]
    assert decision_facts({"null_threshold": -1.25}, ("null_threshold",)) == [
        ("null threshold", "-1.2500, chosen in training")
    ]
    assert decision_facts({"temperature": 1.0}, ()) == []
