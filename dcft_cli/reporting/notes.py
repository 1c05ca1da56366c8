"""Sentences that go with a table: how to read it, and what it cannot say."""

from collections.abc import Iterator

from dcft_cli.reporting.groups import method_settings
from dcft_cli.reporting.report import Report, TableReport

PUBLISHED = (
    "Published numbers are those of arXiv 2503.01419: the best evaluation on the validation rows, "
    "of one seed. Compare them with single best scores, not with means over seeds."
)
BRIEFLY = (
    "± standard deviation over seeds. [95 % interval] of paired differences. "
    "The best checkpoint is chosen on the rows that it is scored on."
)


def reading() -> list[str]:
    """Return how the numbers are made."""
    return [
        "best: the main score of the best checkpoint, which the adapter file holds. It is chosen "
        "on the rows that it is scored on, so it is higher than on new rows. "
        "last: the score after the last step, which is not chosen.",
        "Mean ± standard deviation over n seeds (n - 1 in the denominator).",
        "Differences are paired: the mean over the seeds that both groups have, with a 95 % "
        "interval of Student's t in brackets. They are not corrected for several comparisons.",
        "adapter and head: trained parameters; of AdaLoRA and SoRA, those that are left. "
        "stored: size of the adapter file. memory: peak on a CUDA device.",
    ]


def table_notes(report: TableReport) -> Iterator[str]:
    """Yield the notes of one table."""
    if len(report.rows) > 1:
        yield f"Differences are to {report.reference}."
    fewer = [
        f"{row.group.name} ({row.difference.n})"
        for row in report.rows
        if row.difference is not None and 1 < row.difference.n < row.best.n
    ]
    if fewer:
        yield f"Seeds shared with it, where fewer than n: {', '.join(fewer)}."
    if methods := method_settings([group.settings for group in report.table.groups]):
        found = "; ".join(f"{method}: {' '.join(words)}" for method, words in methods.items())
        yield f"Settings that differ between methods: {found}."
    if not report.greater_is_better:
        yield f"Lower {report.metric} is better."
    if len(report.devices) > 1:
        yield f"Times are not comparable: runs used several devices ({', '.join(report.devices)})."
    for row in report.rows:
        runs = [run.metrics for run in row.group.runs.values()]
        if len({run.row_hashes.train for run in runs}) > 1:
            numbers = ", ".join(f"{rows:,}" for rows in sorted({run.train_rows for run in runs}))
            yield f"{row.group.name}: the training rows changed between seeds ({numbers} rows)."
    reasons: dict[str, list[str]] = {}
    for row in report.rows:
        if row.published.reason:
            reasons.setdefault(row.published.reason, []).append(row.group.name)
    if any(row.published.numbers for row in report.rows):
        yield PUBLISHED
    for reason, names in reasons.items():
        which = "" if len(names) == len(report.rows) else f"{', '.join(names)}: "
        yield f"Published numbers: {which}not comparable, {reason}."


def excluded_lines(report: Report) -> list[str]:
    """Return a line for each run that is not counted."""
    return [f"{run.folder}: {run.reason}" for run in report.excluded]
