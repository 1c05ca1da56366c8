"""A report: of each table its groups' scores, sizes and costs, and published numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dcft_cli.addresses import SCHEME
from dcft_cli.errors import UserError, did_you_mean, listed
from dcft_cli.recipe import DataSection, is_file_address
from dcft_cli.reporting.collect import Excluded, Run, collect
from dcft_cli.reporting.groups import Group, Table, differences, make_tables, settings_of
from dcft_cli.reporting.published import Comparison, compare
from dcft_cli.reporting.statistics import Difference, Summary, paired_difference, summarize
from dcft_cli.tasks.metrics import greater_is_better


@dataclass(frozen=True)
class Row:
    """A group's numbers, each summarized over its seeds.

    Attributes:
        best, last: the main metric of the best checkpoint, and after the last step.
        difference, last_difference: of these to the reference; None for the reference itself, and
            if they share no seed.
        adapter, head: trained parameters.
        stored: bytes of the adapter file.
        seconds: time of the run.
        memory: peak bytes on the device; None where it is not measured (on CPUs).
        published: of the paper.
    """

    group: Group
    best: Summary
    last: Summary
    difference: Difference | None
    last_difference: Difference | None
    adapter: Summary
    head: Summary
    stored: Summary | None
    seconds: Summary
    memory: Summary | None
    published: Comparison


@dataclass(frozen=True)
class TableReport:
    """A table with its numbers.

    Attributes:
        reference: name of the group that differences are taken to.
        baselines: the main metric without training, by baseline.
        devices: names of the devices that runs used.
    """

    table: Table
    title: str
    metric: str
    greater_is_better: bool
    reference: str
    baselines: Mapping[str, Summary]
    rows: tuple[Row, ...]
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Tables, and the runs that are not counted in them."""

    sources: tuple[str, ...]
    tables: tuple[TableReport, ...]
    excluded: tuple[Excluded, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        excluded = [{"run": str(run.folder), "reason": run.reason} for run in self.excluded]
        return {"tables": [_table_json(table) for table in self.tables], "excluded": excluded}


def make_report(sources: Sequence[str], reference: str | None = None) -> Report:
    """Compare all finished runs in and below the given folders.

    Args:
        reference: name of a group, or a method with one group. Default: the first group of dcft,
            else the first group.

    Raises:
        RunError: there are no finished runs.
        UserError: no table has the reference.
    """
    runs, excluded = collect(sources)
    tables, repeated = make_tables(runs)
    found = [_named_group(table, reference) for table in tables]
    if reference is not None and not any(found):
        names = list(dict.fromkeys(g.name for table in tables for g in table.groups))
        raise UserError(
            f"No group is named {reference}.",
            f"{did_you_mean(reference, names)}There are: {listed(names)}.",
        )
    titles = _titles(tables)
    reports = [
        _report(table, title, group or _default_group(table))
        for table, title, group in zip(tables, titles, found, strict=True)
    ]
    return Report(tuple(sources), tuple(reports), (*excluded, *repeated))


def _named_group(table: Table, name: str | None) -> Group | None:
    exact = [group for group in table.groups if group.name == name]
    of_method = [group for group in table.groups if group.method == name]
    return exact[0] if exact else of_method[0] if len(of_method) == 1 else None


def _default_group(table: Table) -> Group:
    return next((group for group in table.groups if group.method == "dcft"), table.groups[0])


def _report(table: Table, title: str, reference: Group) -> TableReport:
    metric = table.first.metric
    return TableReport(
        table=table,
        title=title,
        metric=metric,
        greater_is_better=greater_is_better(metric),
        reference=reference.name,
        baselines=_baselines(table.runs),
        rows=tuple(_row(group, reference) for group in table.groups),
        devices=tuple(dict.fromkeys(str(run.metrics.device) for run in table.runs)),
    )


def _row(group: Group, reference: Group) -> Row:
    best = {seed: run.best for seed, run in group.runs.items()}
    last = {seed: run.last for seed, run in group.runs.items()}
    difference = last_difference = None
    if group is not reference:
        of = reference.runs
        difference = paired_difference(best, {seed: run.best for seed, run in of.items()})
        last_difference = paired_difference(last, {seed: run.last for seed, run in of.items()})
    runs = group.runs.values()
    return Row(
        group=group,
        best=summarize(best.values()),
        last=summarize(last.values()),
        difference=difference,
        last_difference=last_difference,
        adapter=summarize(run.adapter_parameters for run in runs),
        head=summarize(run.metrics.head_parameters for run in runs),
        stored=_known(run.stored_bytes for run in runs),
        seconds=summarize(run.metrics.seconds for run in runs),
        memory=_known(run.metrics.peak_device_bytes for run in runs),
        published=compare(group),
    )


def _known(values: Iterable[float | None]) -> Summary | None:
    """Return the summary of the values that are not None; None if all are."""
    known = [value for value in values if value is not None]
    return summarize(known) if known else None


def _baselines(runs: Sequence[Run]) -> dict[str, Summary]:
    """Return the baselines over seeds; runs of several groups with one seed count as one."""
    names = list(dict.fromkeys(name for run in runs for name in run.baselines))
    found = {}
    for name in names:
        by_seed: dict[int, list[float]] = {}
        for run in runs:
            if name in run.baselines:
                by_seed.setdefault(run.metrics.seed, []).append(run.baselines[name])
        found[name.replace("_", " ")] = summarize(
            summarize(values).mean for values in by_seed.values()
        )
    return found


def _titles(tables: Sequence[Table]) -> list[str]:
    """Return task, data and base model of each table, with as much detail as tells them apart."""
    short = [_title(table.first, whole=False) for table in tables]
    whole = [_title(table.first, whole=True) for table in tables]
    titles = [s if short.count(s) == 1 else w for s, w in zip(short, whole, strict=True)]
    settings = [{**settings_of(t.first), "rows": _rows_hash(t.first)} for t in tables]
    for title in {title for title in titles if titles.count(title) > 1}:
        alike = [n for n, other in enumerate(titles) if other == title]
        for n, words in zip(alike, differences([settings[n] for n in alike]), strict=True):
            titles[n] = " ".join([title, *words])
    return titles


def _rows_hash(run: Run) -> str:
    """Return what tells the scored rows from others in the same files, in a few letters."""
    return "+".join(found[:6] for found in run.metrics.row_hashes.validation.values())


def _title(run: Run, *, whole: bool) -> str:
    def name(address: str) -> str:
        if whole or address.startswith(SCHEME):  # a package's name tells more than a file's
            return address.removeprefix(SCHEME)
        return Path(address).name

    data = run.recipe.data
    parts = [data.train] if data.train else []
    if parts and is_file_address(parts[0]):
        parts = [name(parts[0])]
    elif data.hub:
        parts = [data.hub, *([data.config] if data.config else []), *parts]
    rows = run.metrics.validation_rows
    count = " + ".join(f"{rows:,}" for rows in rows.values())
    return (
        f"{run.metrics.task} ({' '.join(parts)}, scored on {count} rows{_source(data, whole)}), "
        f"{name(run.recipe.model.name)}"
    )


def _source(data: DataSection, whole: bool) -> str:
    """Return where the rows to score come from, for titles with whole paths."""
    return f" of {data.validation}" if whole and isinstance(data.validation, str) else ""


def _table_json(report: TableReport) -> dict[str, Any]:
    rows = []
    for row in report.rows:
        runs = row.group.runs
        numbers = {k: v for k, v in vars(row).items() if k not in ("group", "published")}
        rows.append(
            {
                "name": row.group.name,
                "method": row.group.method,
                "seeds": list(runs),
                "runs": [str(run.folder) for run in runs.values()],
                "best_scores": [run.best for run in runs.values()],
                "last_scores": [run.last for run in runs.values()],
                **{name: None if v is None else asdict(v) for name, v in numbers.items()},
                "published": [asdict(number) for number in row.published.numbers],
                "not_comparable": row.published.reason or None,
            }
        )
    return {
        "title": report.title,
        "metric": report.metric,
        "greater_is_better": report.greater_is_better,
        "reference": report.reference,
        "devices": list(report.devices),
        "baselines": {name: asdict(summary) for name, summary in report.baselines.items()},
        "groups": rows,
    }
