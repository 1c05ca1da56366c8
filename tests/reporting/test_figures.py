"""Figures: the Pareto front, curves over seeds, and SVG that fits into a page."""

import re
import sys
from pathlib import Path

import pytest

from dcft_cli.errors import UserError
from dcft_cli.reporting.collect import collect
from dcft_cli.reporting.curves import curve
from dcft_cli.reporting.figures import draw, pareto
from dcft_cli.reporting.report import TableReport, make_report
from tests.reporting.runs import write_run


def table(root: Path, **settings: object) -> TableReport:
    """Kernels 2, 4, 8, 12; the scores of 4 and 12 are beaten by smaller adapters."""
    for kernel, trained, best in ((2, 830, 0.9), (4, 430, 0.6), (8, 250, 0.7), (12, 240, 0.65)):
        for seed in (1, 2):
            write_run(
                root / f"{kernel}-{seed}", f"adapter.kernel_size={kernel}", seed=seed, best=best,
                adapter_parameters=trained, scores=[(3, best - seed / 100), (6, best)], **settings,
            )  # fmt: skip
    (found,) = make_report([str(root)]).tables
    return found


def test_the_pareto_front(tmp_path: Path) -> None:
    trained = [row.adapter.mean for row in pareto(table(tmp_path / "a"))]
    assert trained == [240, 250, 830]
    lower = table(tmp_path / "b", main_metric="mse")
    assert [row.adapter.mean for row in pareto(lower)] == [240, 430]


def test_curves_are_over_steps_that_all_seeds_have(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=1, scores=[(2, 0.5), (4, 0.6), (6, 0.7)])
    write_run(tmp_path / "b", seed=2, scores=[(2, 0.7), (6, 0.9)])
    runs, _ = collect([str(tmp_path)])
    found = curve(runs)
    assert found is not None
    assert found.steps.tolist() == [2, 6]
    assert found.mean.tolist() == pytest.approx([0.6, 0.8])
    assert found.sd.tolist() == pytest.approx([0.02**0.5] * 2)
    assert curve(runs[:1]) is not None
    assert curve([]) is None


def test_svg_has_readable_text_and_no_address(tmp_path: Path) -> None:
    drawings = draw(table(tmp_path), "t0-")
    assert len(drawings) == 3
    for drawing in drawings:
        assert drawing.svg.startswith("<svg role=")
        assert "http" not in drawing.svg
        assert ">dcft kernel_size=12</text>" in drawing.svg
        ids = re.findall(r'\bid="([^"]+)"', drawing.svg)
        assert len(ids) == len(set(ids))
        used = set(re.findall(r'(?:href="|url\()#([^")]+)', drawing.svg))
        assert used and used <= set(ids)
        colors = re.findall(r"(?<!, )#[0-9a-f]{6}\b", drawing.svg)
        assert colors == []  # all are variables, for light and dark
    first, second, _ = (set(re.findall(r'\bid="([^"]+)"', d.svg)) for d in drawings)
    assert not first & second


def test_the_same_runs_give_the_same_figures(tmp_path: Path) -> None:
    assert draw(table(tmp_path), "a") == draw(make_report([str(tmp_path)]).tables[0], "a")


def test_many_groups_and_one_run(tmp_path: Path) -> None:
    for kernel in range(1, 18):
        write_run(tmp_path / "many" / str(kernel), f"adapter.kernel_size={kernel}")
    (many,) = make_report([str(tmp_path / "many")]).tables
    assert all("kernel_size=17" in drawing.svg for drawing in draw(many, "a"))
    write_run(tmp_path / "one" / "run", adapter_parameters=0)  # a head only
    (one,) = make_report([str(tmp_path / "one")]).tables
    assert len(draw(one, "a")) == 3


def test_long_names_and_patterns_are_text(tmp_path: Path) -> None:
    for kernel in range(1, 9):
        targets = f"adapter.targets=[Q, 'layer.[{kernel}$].*', 'attention.output.dense$', pooler]"
        write_run(tmp_path / str(kernel), targets, f"adapter.kernel_size={kernel}")
    (found,) = make_report([str(tmp_path)]).tables
    sizes, *_ = draw(found, "a")
    assert "layer.[8$].*" in sizes.svg and "dense$" in sizes.svg
    height = float(re.search(r'viewBox="0 0 \S+ (\S+)"', sizes.svg)[1])  # type: ignore[index]
    assert height > 72 * (2.8 + 16 * 0.2 - 0.1)  # two lines in the legend for each


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="need the package matplotlib") as error:
        draw(table(tmp_path), "a")
    assert 'pip install "dcft-cli[plot]"' in error.value.hint
