"""A report as csv: unrounded numbers, one line per group."""

import csv
import io
from typing import Any

from dcft_cli.reporting.report import Report, Row, TableReport

_SUMMARIES = ("best", "last", "adapter", "head", "stored", "seconds", "memory")


def to_csv(report: Report) -> str:
    """Return all groups, and the baselines of each table; a cell without a value is empty.

    `best_scores` and `last_scores` are the scores of `seeds`, in the same order; half is half the
    width of the 95 % interval.
    """
    records = [record for table in report.tables for record in _records(table)]
    header = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _records(report: TableReport) -> list[dict[str, Any]]:
    shared = {"table": report.title, "metric": report.metric, "reference": report.reference}
    baselines: list[dict[str, Any]] = [
        {"name": name, "n": s.n, "best_mean": s.mean, "best_sd": s.sd}
        for name, s in report.baselines.items()
    ]
    groups = [_group(row) for row in report.rows]
    # Groups first set the order of the columns.
    return [shared | record for record in (*groups, *baselines)]


def _group(row: Row) -> dict[str, Any]:
    runs = row.group.runs
    record: dict[str, Any] = {"name": row.group.name, "method": row.group.method, "n": row.best.n}
    for name in _SUMMARIES:
        summary = getattr(row, name)
        record[f"{name}_mean"] = summary and summary.mean
        record[f"{name}_sd"] = summary and summary.sd
    for name in ("difference", "last_difference"):
        difference = getattr(row, name)
        for part in ("n", "mean", "half"):
            record[f"{name}_{part}"] = difference and getattr(difference, part)
    numbers = row.published.numbers
    return record | {
        "seeds": " ".join(map(str, runs)),
        "best_scores": " ".join(repr(run.best) for run in runs.values()),
        "last_scores": " ".join(repr(run.last) for run in runs.values()),
        "published": " ".join(str(number.fraction) for number in numbers),
        "published_source": "; ".join(number.source for number in numbers),
        "not_comparable": row.published.reason,
    }
