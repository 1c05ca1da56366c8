"""The paper's numbers: all there, and shown only beside runs that they can be compared with."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from dcft_cli.reporting.collect import collect
from dcft_cli.reporting.groups import make_tables
from dcft_cli.reporting.published import Comparison, compare, published
from dcft_cli.reporting.report import make_report
from dcft_cli.tasks.known import KNOWN
from tests.reporting.runs import write_run

RTE = {"train_rows": 2490, "validation_rows": {"validation": 277}}


def compared(folder: Path, *overrides: str, recipe: str = "rte", **metrics: Any) -> Comparison:
    name = recipe if "\n" in recipe else f"recipes/{recipe}.yaml"
    write_run(folder / "run", *overrides, recipe=name, **{**RTE, **metrics})
    ((table,), _) = make_tables(collect([str(folder)])[0])
    return compare(table.groups[0])


def test_every_number_of_every_table_is_there() -> None:
    cells = Counter(number.experiment for number in published())
    assert cells == {
        # methods x (seven tasks, MNLI twice, the mean); of RoBERTa-large MNLI once
        "Table 1": 9 * 10 + 7 * 9,
        "Table 2": 3 * 4 - 2,  # two numbers of the first row are missing in the text read
        "Table 3": 5 * 4,
        "Table 4": 6 * 7 + 5 * 7,  # scores; hours, not of full fine-tuning
        "Table 5": 4 * 4 * 2,
        "Table 6": 5 * 4,
    }
    assert (
        len({(n.experiment, n.model, n.task, n.method, n.setting, n.metric) for n in published()})
        == 312
    )


def test_numbers_agree_with_the_printed_means() -> None:
    """A mistyped number moves its row's mean; these rows' printed means are off in the paper."""
    off = {
        ("Table 1", "deberta-v3-base", "full", "", False): 0.06,
        ("Table 1", "deberta-v3-base", "bitfit", "", False): 0.09,
        ("Table 1", "roberta-large", "dcft", "kernel_size=2", False): 0.15,
        ("Table 4", "deberta-v3-base", "dcft", "kernel_size=8", True): 0.09,
    }
    rows: dict[Any, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for n in published():
        row = (n.experiment, n.model, n.method, n.setting, n.metric.endswith("hours"))
        rows[row][n.task].append(float(n.score))
    checked = 0
    for row, tasks in rows.items():
        if "average" in tasks:
            (printed,) = tasks.pop("average")
            mean = sum(sum(values) / len(values) for values in tasks.values()) / len(tasks)
            assert printed == pytest.approx(mean, abs=off.get(row, 0.006)), row
            checked += 1
    assert checked == 9 + 7 + 6 + 5


def test_numbers_are_well_formed() -> None:
    for number in published():
        assert number.source.startswith(f"arXiv 2503.01419, {number.experiment}")
        assert 0 < float(number.score) < 100
        assert number.task == "average" or number.task in KNOWN
        assert number.parameters is None or 5e3 < number.parameters < 2e9
    dcft = [n for n in published() if n.method == "dcft"]
    assert {n.setting.partition(" ")[0] for n in dcft} == {
        f"kernel_size={d}" for d in (2, 4, 6, 8, 12)
    }


@pytest.mark.parametrize(
    ("recipe", "overrides", "scores"),
    [
        ("rte", [], {"Table 1": 88.45, "Table 4": 88.45, "Table 5": 88.45, "Table 6": 88.45}),
        ("rte", ["model.name=/models/DeBERTa-v3-base"], {"Table 1": 88.45}),
        ("rte", ["adapter.kernel_size=12"], {"Table 4": 84.12}),
        ("rte", ["adapter.stride=8"], {"Table 5": 88.45}),
        ("rte", ["adapter.stride=2"], {"Table 5": 88.09}),
        ("rte", ["adapter.targets=[V,Q]"], {"Table 6": 83.03}),
        ("roberta-large/rte", ["adapter.kernel_size=2"], {"Table 1": 89.9}),
    ],
)
def test_published_numbers_beside_runs(
    tmp_path: Path, recipe: str, overrides: list[str], scores: dict[str, float]
) -> None:
    found = compared(tmp_path, *overrides, recipe=recipe)
    assert found.reason == ""
    by_table = {number.experiment: float(number.score) for number in found.numbers}
    assert {table: by_table[table] for table in scores} == scores


def test_the_size_of_a_pruned_adapter_is_what_is_left(tmp_path: Path) -> None:
    """As the paper counts: not all gates that SoRA starts with."""
    started = {"adapter_parameters": 331_776, **RTE}
    for name, facts in (("all", {}), ("left", {"method_facts": {"parameters_left": 120_000}})):
        found = compared(tmp_path / name, "adapter.method=sora", **started, **facts)
        assert bool(found.numbers) == bool(facts)


def test_mnli_needs_both_sets_and_names_one_score(tmp_path: Path) -> None:
    rows = {"matched": 9815, "mismatched": 9832}
    found = compared(
        tmp_path, recipe="mnli", train_rows=392702, validation_rows=rows,
        main_metric="matched_accuracy",
    )  # fmt: skip
    assert [number.score for number in found.numbers] == ["89.40"]


@pytest.mark.parametrize(
    ("overrides", "metrics", "reason"),
    [
        (["model.name=some/minilm"], {}, "minilm is not a base model of the paper"),
        (["model.quantization=4bit"], {}, "the base model is in 4bit"),
        ([], {"validation_rows": {"validation": 12}}, "12 validation rows, of officially 277"),
        ([], {"train_rows": 300}, "300 training rows, of officially 2,490"),
        ([], {"train_rows": 2500}, "2,500 training rows, of officially 2,490"),
        (["adapter.rank=2"], {}, "the paper has other settings"),
        (["adapter.kernel_size=3"], {}, "the paper has other settings"),
        (["model.name=x/deberta-v2-xxlarge"], {}, "the paper has no accuracy of rte with"),
    ],
)
def test_what_is_not_comparable_says_why(
    tmp_path: Path, overrides: list[str], metrics: dict[str, Any], reason: str
) -> None:
    found = compared(tmp_path, *overrides, **metrics)
    assert found.numbers == ()
    assert found.reason.startswith(reason)


def test_own_data_is_not_comparable(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    (table,) = make_report([str(tmp_path)]).tables
    assert table.rows[0].published.reason == "own data"
