"""Where predictions fail: scores by class, confusions, calibration, and the thresholds used."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_MAX_CLASSES = 20
_MAX_CONFUSIONS = 10

Report = Mapping[str, Any]


def decision_facts(decision: Mapping[str, Any], chosen: Collection[str]) -> list[tuple[str, str]]:
    """Return which thresholds and which temperature turned logits into predictions.

    Args:
        decision: see `EvaluationResult`.
        chosen: its parts that were chosen in training.
    """
    facts = []
    if "thresholds" in decision:
        facts.append(("threshold", _threshold(decision["thresholds"], "thresholds" in chosen)))
    if "null_threshold" in decision:
        found = _threshold(decision["null_threshold"], "null_threshold" in chosen)
        facts.append(("null threshold", found))
    if "temperature" in chosen:
        facts.append(("temperature", f"{decision['temperature']:.4f}, chosen in training"))
    return facts


def _threshold(value: object, chosen: bool) -> str:
    origin = "chosen in training" if chosen else "from the recipe"
    return f"{value:.4f}, {origin}" if isinstance(value, float) else f"one per label, {origin}"


def calibration_fact(report: Report) -> tuple[str, str]:
    """Return the expected calibration error, and the one without a temperature."""
    calibration = report["calibration"]
    text = f"{calibration['error']:.4f}"
    if calibration["temperature"] != 1.0:
        text += f" ({calibration['error_without_temperature']:.4f} without the temperature)"
    return "calibration error", text


def report_tables(reports: Mapping[str, Report]) -> RenderableType:
    """Return scores by class and the most frequent confusions of every validation set."""
    parts: list[RenderableType] = []
    for name, report in reports.items():
        if len(reports) > 1:
            title = f"{name}, {' '.join(calibration_fact(report))}"
            parts += ["", Text(title, style="bold"), _classes(report), *_confusions(report)]
        else:
            parts += ["", _classes(report), *_confusions(report)]
    return Group(*parts)


def _classes(report: Report) -> RenderableType:
    """Return the scores by class; of many classes, those with the most errors."""
    classes: dict[str, Any] = report["classes"]
    names = list(classes)
    if len(names) > _MAX_CLASSES:
        names = sorted(names, key=lambda name: -_errors(classes[name]))[:_MAX_CLASSES]
    has_threshold = "threshold" in classes[names[0]]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(report["unit"], overflow="fold")
    columns = ["support", "predicted", "precision", "recall", "f1"]
    for column in (*columns, *(["threshold"] if has_threshold else [])):
        table.add_column(column, justify="right", no_wrap=True)
    for name in names:
        scores = classes[name]
        counts = [f"{scores[column]:,}" for column in columns[:2]]
        shares = [scores[column] for column in columns[2:]]
        shares += [scores["threshold"]] if has_threshold else []
        table.add_row(Text(name), *counts, *("" if s is None else f"{s:.4f}" for s in shares))
    if (rest := len(classes) - len(names)) == 0:
        return table
    note = f"The {len(names)} with the most errors; {rest:,} more with --json."
    return Group(table, Text(note, style="dim"))


def _errors(scores: Mapping[str, Any]) -> float:
    """Return how many predictions of a class are wrong or missing."""
    hits = (scores["recall"] or 0.0) * scores["support"]
    return float(scores["support"] + scores["predicted"] - 2 * hits)


def _confusions(report: Report) -> Iterator[RenderableType]:
    found = report["confusions"]
    if not found:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    unit = report["unit"]
    table.add_column(unit, overflow="fold")
    table.add_column("predicted as", overflow="fold")
    table.add_column("words" if unit == "entity" else "count", justify="right", no_wrap=True)
    table.add_column(f"of {unit}", justify="right", no_wrap=True)
    for confusion in found[:_MAX_CONFUSIONS]:
        table.add_row(
            Text(confusion["label"]),
            Text(confusion["prediction"]),
            f"{confusion['count']:,}",
            f"{confusion['share']:.1%}",
        )
    yield ""
    yield table
    if (rest := len(found) - _MAX_CONFUSIONS) > 0:
        yield Text(f"The {_MAX_CONFUSIONS} most frequent; {rest:,} more with --json.", style="dim")
