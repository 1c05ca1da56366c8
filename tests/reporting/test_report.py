"""Numbers of a report, and what they look like in Markdown, csv and JSON."""

import csv
import io
import json
from pathlib import Path

import pytest

from dcft_cli.errors import UserError
from dcft_cli.reporting.columns import columns, duration, size
from dcft_cli.reporting.markdown import to_markdown
from dcft_cli.reporting.report import Report, make_report
from dcft_cli.reporting.statistics import Summary
from dcft_cli.reporting.table_csv import to_csv
from tests.reporting.runs import write_run

BEST = {8: {1: 0.70, 2: 0.72, 3: 0.74}, 2: {2: 0.80, 3: 0.80}, 4: {3: 0.75}, 6: {9: 0.5}}


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Kernel sizes 2, 4, 6 and 8 with some seeds missing."""
    for kernel, scores in BEST.items():
        for seed, best in scores.items():
            write_run(
                tmp_path / f"{kernel}-{seed}", f"adapter.kernel_size={kernel}", best=best,
                last=best - 0.1, seed=seed, seconds=100.0 * seed,
                baselines={"constant": {"accuracy": 0.5}, "fitted_head": {"accuracy": seed / 10}},
            )  # fmt: skip
    return make_report([str(tmp_path)], "dcft kernel_size=8")


def cells(report: Report) -> dict[str, dict[str, str]]:
    (table,) = report.tables
    names, *others = columns(table)
    return {
        name: {column.heading: column.cells[n] for column in others}
        for n, name in enumerate(names.cells)
    }


def test_scores_differences_and_baselines(report: Report) -> None:
    found = cells(report)
    assert list(found)[:2] == ["constant", "fitted head"]
    # Seeds 1, 2, 3 and 9, each once; several groups have the same seed.
    assert found["fitted head"]["best"] == "0.3750 ± 0.3594"
    assert (found["fitted head"]["n"], found["fitted head"]["last"]) == ("4", "")
    assert found["dcft kernel_size=8"]["best"] == "0.7200 ± 0.0200"
    assert found["dcft kernel_size=8"]["last"] == "0.6200 ± 0.0200"
    assert found["dcft kernel_size=8"]["difference (best)"] == "reference"
    # Seeds 2 and 3: 0.08 and 0.06; t for one degree of freedom is 12.706.
    half = 12.7062 * (0.0002**0.5) / 2**0.5
    assert found["dcft kernel_size=2"]["difference (best)"] == (
        f"+0.0700 [{0.07 - half:+.4f}, {0.07 + half:+.4f}]"
    )
    assert found["dcft kernel_size=4"]["difference (best)"] == "+0.0100 (n = 1: no interval)"
    assert found["dcft kernel_size=6"]["difference (best)"] == "no seed in common"
    assert found["dcft kernel_size=2"]["time"] == "4.2 min"
    assert found["dcft kernel_size=2"]["stored"] == "1.2 kB"
    assert "memory" not in found["dcft kernel_size=2"]  # not measured on CPUs


def test_csv_has_the_numbers_unrounded(report: Report) -> None:
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(to_csv(report)))}
    assert len(rows) == 6
    found = rows["dcft kernel_size=2"]
    assert (found["seeds"], found["best_scores"], found["n"]) == ("2 3", "0.8 0.8", "2")
    assert float(found["difference_mean"]) == pytest.approx(0.07)
    assert found["difference_n"] == "2"
    assert found["not_comparable"] == "own data"
    assert rows["dcft kernel_size=4"]["difference_half"] == ""
    assert float(rows["constant"]["best_mean"]) == 0.5


def test_json_has_everything(report: Report) -> None:
    (table,) = json.loads(json.dumps(report.to_json()))["tables"]
    group = next(group for group in table["groups"] if group["name"] == "dcft kernel_size=8")
    assert group["best"] == {"n": 3, "mean": pytest.approx(0.72), "sd": pytest.approx(0.02)}
    assert group["seeds"] == [1, 2, 3]
    assert group["difference"] is None
    assert len(group["runs"]) == 3


def test_markdown_has_all_rows_and_notes(report: Report) -> None:
    text = to_markdown(report)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 6
    assert len({line.count("|") for line in lines}) == 1
    assert "- Differences are to dcft kernel_size=8." in text
    assert "- Published numbers: not comparable, own data." in text


def test_the_reference_is_dcft_unless_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "adapter.kernel_size=4")
    write_run(tmp_path / "b", "adapter.kernel_size=2")
    (table,) = make_report([str(tmp_path)]).tables
    assert table.reference == "dcft kernel_size=2"
    with pytest.raises(UserError, match="No group is named dcft kernel_size=3") as error:
        make_report([str(tmp_path)], "dcft kernel_size=3")
    assert "dcft kernel_size=2" in error.value.hint
    with pytest.raises(UserError, match="No group is named dcft\\."):  # two groups are
        make_report([str(tmp_path)], "dcft")


def test_notes_say_what_cannot_be_compared(tmp_path: Path) -> None:
    mse = {"main_metric": "mse", "validation_rows": {"validation": 12}}
    changed = {"train": "other rows", "validation": {"validation": "v"}}
    write_run(tmp_path / "a", "adapter.kernel_size=4", device="CPU", **mse)
    write_run(tmp_path / "b", device="NVIDIA H200", **mse)
    write_run(tmp_path / "c", device="CPU", seed=2, train_rows=1025, **mse, row_hashes=changed)
    report = make_report([str(tmp_path)])
    assert not report.tables[0].greater_is_better
    text = to_markdown(report)
    assert "- Lower mse is better." in text
    assert "- dcft kernel_size=8: the training rows changed between seeds (24, 1,025 rows)." in text
    assert "- Seeds shared with it, where fewer than n: " not in text  # n = 1 is in the table
    assert "Times are not comparable: runs used several devices (CPU, NVIDIA H200)." in text


def test_a_file_with_other_rows_is_another_data_set(tmp_path: Path) -> None:
    for seed, rows in ((1, "0123456789"), (2, "0123456789"), (3, "abcdefghij")):
        hashes = {"train": "t", "validation": {"validation": rows}}
        write_run(tmp_path / f"{seed}", seed=seed, row_hashes=hashes)
    same, other = make_report([str(tmp_path)]).tables
    assert [same.rows[0].best.n, other.rows[0].best.n] == [2, 1]
    assert same.title.endswith("rows=012345") and other.title.endswith("rows=abcdef")


def test_published_numbers_name_their_tables_and_what_they_are(tmp_path: Path) -> None:
    rows = {"train_rows": 2490, "validation_rows": {"validation": 277}}
    write_run(tmp_path / "a", recipe="recipes/rte.yaml", **rows)
    write_run(tmp_path / "b", "adapter.kernel_size=3", recipe="recipes/rte.yaml", **rows)
    report = make_report([str(tmp_path)])
    assert cells(report)["dcft kernel_size=8"]["published"] == "0.8845 (Tables 1, 4, 5, 6)"
    text = to_markdown(report)
    assert "the best evaluation on the validation rows, of one seed" in text
    assert "dcft kernel_size=3: not comparable, the paper has other settings." in text


def test_titles_tell_tables_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "data.train=x/rows.csv")
    write_run(tmp_path / "b", "data.train=y/rows.csv")
    write_run(tmp_path / "c", "data.train=y/rows.csv", "data.text=other")
    titles = [table.title for table in make_report([str(tmp_path)]).tables]
    assert titles[0] == "classification (x/rows.csv, scored on 12 rows of dev.csv), some/model"
    assert titles[1].endswith(" text=text")
    assert titles[2].endswith(" text=other")


@pytest.mark.parametrize(
    ("value", "text"), [(999, "999 bytes"), (2_584, "2.6 kB"), (2.4e6, "2.4 MB"), (4e9, "4.0 GB")]
)
def test_sizes(value: float, text: str) -> None:
    assert size(Summary(1, value, None)) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(9.96, "10.0 s"), (119, "119.0 s"), (600, "10.0 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(Summary(1, seconds, None)) == text
