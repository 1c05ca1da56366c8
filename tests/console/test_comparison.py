"""Comparisons in terminals of several widths."""

from pathlib import Path

import pytest

from dcft_cli.console import comparison
from dcft_cli.reporting.report import make_report
from tests.reporting.runs import write_run


@pytest.mark.parametrize(
    ("width", "shown", "left_out"),
    [
        (60, ["n", "best", "adapter"], ["published", "difference (best)"]),
        (80, ["n", "best", "difference (best)", "adapter"], ["published", "difference (last)"]),
        (120, ["last", "difference (best)", "published", "adapter"], ["difference (last)"]),
        (220, ["published", "head", "time", "difference (last)"], []),
    ],
)
def test_the_most_important_columns_that_fit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    width: int,
    shown: list[str],
    left_out: list[str],
) -> None:
    for kernel in (2, 8):
        for seed in (1, 2):
            write_run(
                tmp_path / f"{kernel}-{seed}", f"adapter.kernel_size={kernel}",
                recipe="recipes/rte.yaml", seed=seed, best=0.7 + seed / 1000,
                adapter_parameters=200_000 // kernel, train_rows=2490,
                validation_rows={"validation": 277},
            )  # fmt: skip
    monkeypatch.setattr(comparison.out, "width", width)
    comparison.show_comparison(make_report([str(tmp_path)]))
    lines = capsys.readouterr().out.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("method"))
    heads = lines[start]
    assert all(heading in heads for heading in shown)
    assert not any(heading in heads for heading in left_out)
    table = lines[start : next(n for n, line in enumerate(lines) if line.startswith("Differences"))]
    assert max(map(len, table)) <= width
    assert all("…" not in line for line in table)
    note = next((line for line in lines if line.startswith("Not shown at this width")), "")
    assert all(heading in note for heading in left_out)
    paper = any("one seed" in line for line in lines)
    assert paper == ("published" in heads)
